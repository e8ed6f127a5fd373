#!/usr/bin/env bash
# Runs the tests; further arguments go to pytest: bash launch/test.sh tests/test_vae.py -k elbo
#
#   bash launch/test.sh          what a fork runs many times: about 12 minutes on 2 cores, compilation included
#   bash launch/test.sh --all    also what is slow: full-size tracing, repeated trainings, references, SLURM, a browser
#
# Exits non-zero when a test fails, and also when none ran. One process for each core, a file of tests in one of them;
# -n 0 runs all in this process.

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare
tune
cd "$root"
which=(-m "not slow")
if [ "${1-}" = --all ]; then
  shift
  which=()
else
  export GENMAP_QUICK_TESTS=1 # see tests/conftest.py
fi
exec "$python" -m pytest -n auto --dist loadfile "${which[@]}" "$@"
