# Shared by the scripts: where things are and how to speak. Sourced, not run.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export NODE_NO_WARNINGS=${NODE_NO_WARNINGS:-1}
# These halve OpenBLAS on modern processors where an environment sets them.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
