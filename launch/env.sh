# Sourced by the other scripts of this folder. Gives $root, the checkout, and $python, which has genmap_jax installed
# once `prepare` has run: the first use makes .venv and installs (needs a network), later uses only compare a stamp.
#
#   PYTHON=python3.12           makes .venv from this Python; default: the first of python3.11 ... python3.14, python3
#   GENMAP_EXTRA=cuda12         installs this extra of pyproject.toml too (cuda12, cuda13, tpu, ray, ...); remembered
#   GENMAP_NO_COMPILE_CACHE=1   compiles afresh, neither reading nor writing compiled programs

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"

say() { echo "genmap_jax: $*" >&2; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  say "Python 3.11 or newer is needed; tried ${PYTHON:-python3.11 ... python3.14, python3}." \
    "Install one, or name it: PYTHON=/path/to/python3.12 bash launch/local.sh"
  return 1
}

# What the environment was made of. The path is part of it: an environment does not survive being moved.
stamp() {
  { echo "$root" "$1" && "$python" -V && cat "$root/pyproject.toml" "$root/constraints.txt"; } 2>&1 | cksum
}

prepare() {
  local extra base
  extra="${GENMAP_EXTRA-$(cat "$venv/extra" 2>/dev/null || true)}"
  if [ "$(cat "$venv/installed" 2>/dev/null)" = "$(stamp "$extra")" ]; then return; fi

  if ! "$python" -m pip --version >/dev/null 2>&1; then # never made, half made, or the Python it was made from is gone
    if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -e "$venv/extra" ]; then
      say "$venv has no pip and was not made by this script, which leaves it as it is. Move it away, or give it pip:" \
        "$python -m ensurepip (made by uv: uv pip install --python $python pip)"
      return 2
    fi
    base="$(find_python)"
    say "making .venv with $("$base" -V 2>&1)"
    # --without-pip takes no time: only then the environment is ours to make again, should the rest not finish.
    if ! { "$base" -m venv --clear --without-pip "$venv" && echo "$extra" >"$venv/extra" && "$python" -m ensurepip; } \
      >/dev/null; then
      say "$base cannot make environments. On Debian and Ubuntu: apt-get install python3-venv. Elsewhere take a" \
        "Python with the modules venv and ensurepip, and name it: PYTHON=/path/to/python3.12 bash launch/local.sh"
      return 1
    fi
  fi
  rm -f "$venv/installed" # so that an install which does not finish is done again
  echo "$extra" >"$venv/extra"
  say "installing into .venv (this once, a minute or two)"
  "$python" -m pip install --quiet --disable-pip-version-check --no-compile \
    -e "${root}[dev${extra:+,$extra}]" -c "$root/constraints.txt"
  stamp "$extra" >"$venv/installed"
}

# Speed on CPUs, without effect on results. What the user has set stays.
tune() {
  # XLA frees its temporaries after every step; by default glibc hands them to the kernel and faults them in again.
  if [ -z "${GLIBC_TUNABLES+set}" ] && getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
    local keep=17179869184
    export GLIBC_TUNABLES="glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
    GLIBC_TUNABLES+=":glibc.malloc.trim_threshold=$keep:glibc.malloc.mmap_threshold=$keep"
  fi
  # Compiled programs are kept, one folder per jaxlib and kind of CPU (they can crash on a CPU with other features).
  if [ -z "${GENMAP_NO_COMPILE_CACHE:-}" ] && [ -z "${JAX_COMPILATION_CACHE_DIR+set}" ]; then
    local cpu jaxlib
    cpu="$({ uname -m && { grep -E -m4 '^(model name|CPU part|flags|Features)' /proc/cpuinfo ||
      sysctl -n machdep.cpu.brand_string; }; } 2>/dev/null | cksum | cut -d' ' -f1)"
    jaxlib="$(basename "$venv"/lib/python*/site-packages/jaxlib-*.dist-info .dist-info)"
    local home="${HOME:-$(unset HOME && echo ~)}" # HOME may not be set: then it is that of the user's account
    export JAX_COMPILATION_CACHE_DIR="${XDG_CACHE_HOME:-$home/.cache}/genmap_jax/compiled/$jaxlib-cpu-$cpu"
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
  fi
}
