#!/usr/bin/env bash
# Trains one experiment on a Cloud TPU VM or pod slice, from your own machine (needs gcloud, logged in). One process
# runs on every worker; JAX finds the others by itself. The image of the VM must have Python 3.11 or newer.
#
#   bash launch/tpu_pod.sh NAME ZONE experiments/vae_cifar10.py --workdir /shared/runs/vae
#
# --workdir must be a folder that all workers see (a Filestore or gcsfuse mount): every worker writes its part of a
# checkpoint there. Exit code 75 means preempted after saving: make the TPU again if it is gone, run the same command.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: bash launch/tpu_pod.sh NAME ZONE experiments/EXPERIMENT.py --workdir SHARED_FOLDER ..." >&2
  exit 2
fi
name="$1" zone="$2"
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The working tree as it is, uncommitted changes too, but nothing that git ignores.
bundle="$(mktemp -d)"
trap 'rm -rf "$bundle"' EXIT
git ls-files --cached --others --exclude-standard -z | tar --null -T - -czf "$bundle/genmap_jax.tar.gz"
gcloud compute tpus tpu-vm scp "$bundle/genmap_jax.tar.gz" "$name:genmap_jax.tar.gz" --zone="$zone" --worker=all

command="mkdir -p genmap_jax && cd genmap_jax && tar -xzf ../genmap_jax.tar.gz"
command+=" && GENMAP_EXTRA=tpu bash launch/local.sh$(printf ' %q' "$@" --distributed)"
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
