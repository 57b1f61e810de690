#!/usr/bin/env bash
# Finds Python: prints the interpreter to use, or with --all one line "MINOR PATH" per Python 3.x on the machine.
#
# The choice: $PYTHON if given, else `python3` if it is new enough, else the newest python3.x.
# Besides PATH and pyenv, $PYTHONS is searched: a folder as tools/get_pythons.sh makes it.
# What is printed is `sys.executable`, so that version managers' shims are resolved once, here.
# Free-threaded builds and interpreters that a system package manager left half installed are passed over.
set -euo pipefail

OLDEST_MINOR=11

# Prints "MINOR EXECUTABLE" if the command is a CPython we support; fails otherwise.
describe() {
    "$1" -c "
import sys, sysconfig
supported = (
    sys.implementation.name == 'cpython'
    and sys.version_info >= (3, $OLDEST_MINOR)
    and not sysconfig.get_config_var('Py_GIL_DISABLED')
)
print(f'3.{sys.version_info.minor}', sys.executable) if supported else sys.exit(1)
" 2>/dev/null
}

# Every command that may be a Python 3, best first: PATH, then pyenv's own installations, then $PYTHONS.
candidates() {
    echo python3
    compgen -c python3. | grep -E '^python3\.[0-9]+$' | sort -u -t. -k2,2nr || true
    if command -v pyenv >/dev/null; then
        find "$(pyenv root)/versions" -mindepth 3 -maxdepth 3 -path '*/bin/python3' 2>/dev/null | sort -rV
    fi
    if [ -n "${PYTHONS:-}" ]; then
        find "$PYTHONS/bin" -name 'python3.*' 2>/dev/null | sort -rV
    fi
}

all() {
    local found
    candidates | while read -r candidate; do
        if found=$(describe "$candidate"); then echo "$found"; fi
    done | sort -s -V -k1,1 | awk '!seen[$1]++'
}

chosen() {
    local found
    if [ -n "${PYTHON:-}" ]; then
        found=$(describe "$PYTHON") && echo "${found#* }" && return
        echo "PYTHON=$PYTHON is not a working CPython 3.$OLDEST_MINOR or newer." >&2
        exit 1
    fi
    found=$(describe python3) && echo "${found#* }" && return
    found=$(all | tail -n 1)
    if [ -n "$found" ]; then echo "${found#* }" && return; fi
    echo "No Python 3.$OLDEST_MINOR or newer was found. Install one (Debian: apt-get install python3)" >&2
    echo "or name it: make PYTHON=/path/to/python3 ..." >&2
    exit 1
}

case "${1:-}" in
    --all) all ;;
    "") chosen ;;
    *) echo "usage: find_python.sh [--all]" >&2; exit 2 ;;
esac
