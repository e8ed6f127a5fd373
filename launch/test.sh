#!/usr/bin/env bash
# Runs the test suite; arguments go to pytest: bash launch/test.sh tests/test_vae.py -k elbo
# Exits non-zero when a test fails, and also when none ran. One process for each core, a file of tests in one of them;
# -n 0 runs all in this process.

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare
tune
cd "$root"
exec "$python" -m pytest -n auto --dist loadfile "$@"
