#!/usr/bin/env bash
# Runs genmap_jax on this machine; Python 3.11 or newer with pip is all it needs. See env.sh for its settings.
#
#   bash launch/local.sh                                        the measured map: every family on the same data
#   bash launch/local.sh experiments/vae_digits.py --seed 1     one experiment; --help lists its flags
#   bash launch/local.sh ANYTHING ELSE                          the same as: genmap ANYTHING ELSE

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare
tune

# exec: signals (preemption, Ctrl-C) must reach Python itself.
case "${1-}" in
  "") exec "$python" -m genmap_jax.commands.cli map ;;
  *.py)
    script="$1"
    shift
    [ -e "$script" ] || script="$root/$script" # from any folder
    exec "$python" "$script" "$@"
    ;;
  *) exec "$python" -m genmap_jax.commands.cli "$@" ;;
esac
