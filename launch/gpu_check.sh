#!/usr/bin/env bash
# Checks and measures genmap_jax on one GPU in at most 8 minutes: a table, and JSON in the folder --out.
#
#   GENMAP_EXTRA=cuda12,parity bash launch/gpu_check.sh --out FOLDER       (cuda13 for newer drivers)
#   bash launch/gpu_check.sh --out FOLDER --parts gpt2,decoding            some of its parts
#   bash launch/gpu_check.sh --out FOLDER --dry                            the whole script at toy sizes, on a CPU too

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare
exec "$python" "$root/experiments/gpu_check.py" "$@"
