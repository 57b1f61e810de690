#!/usr/bin/env bash
# Runs the Python tests on every CPython that find_python.sh finds, each in a virtual environment of its own
# under .venvs/, and ends with one line per interpreter. Fails if any failed, after having run all.
set -uo pipefail

found=$("$(dirname "$0")/find_python.sh" --all)
if [ -z "$found" ]; then echo "No Python 3.11 or newer was found." >&2; exit 1; fi

summary=""
status=0
while read -r minor python; do
    echo "=== Python $minor ($python)"
    if "${MAKE:-make}" --no-print-directory test-python PYTHON="$python" VENV=".venvs/$minor" </dev/null; then
        summary+="Python $minor passed"$'\n'
    else
        summary+="Python $minor FAILED"$'\n'
        status=1
    fi
done <<<"$found"

printf '\n%s' "$summary"
exit $status
