#!/usr/bin/env bash
# Runs the test suite; arguments go to pytest: bash launch/test.sh tests/test_vae.py -k elbo
# Exits non-zero when a test fails, and also when none ran.

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare
tune
cd "$root"
exec "$python" -m pytest "$@"
