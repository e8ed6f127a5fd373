#!/usr/bin/env bash
# Runs the tests; further arguments go to pytest: bash launch/test.sh tests/test_vae.py -k elbo
#
#   bash launch/test.sh          what a fork runs many times: about 7 minutes on 2 quiet cores, compilation included
#   bash launch/test.sh --all    then also what is slow: full-size tracing, repeated trainings, references, SLURM, a browser
#
# Exits non-zero when a test fails, and also when none ran. One process for each core, a file of tests in one of them;
# -n 0 runs all in this process.

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare
tune
cd "$root"

# There is a process for each core: the threads that NumPy and PyTorch would add to each only wait for one another, and a
# test of small matrices takes forty times as long.
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

tests() { "$python" -m pytest -n auto --dist loadfile -m "$@"; }
none=5 # what pytest says when there was no such test
whole="${1-}"
if [ "$whole" = --all ]; then shift; fi

quick=0 slow="$none"
GENMAP_QUICK_TESTS=1 tests "not slow" "$@" || quick=$? # see tests/conftest.py
if [ "$whole" = --all ]; then
  slow=0
  tests slow "$@" || slow=$?
fi
if [ "$quick" = "$none" ]; then quick="$slow"; fi
if [ "$slow" = "$none" ]; then slow="$quick"; fi
exit $((quick > slow ? quick : slow))
