#!/usr/bin/env bash
# Installs the libraries that tests/ecosystem runs: PIP REQUIREMENTS-FILE.
#
# Together if possible; else each by itself, so that one which cannot be had for this Python leaves out its own tests
# only. They skip and name it; so does this script.
set -uo pipefail

pip=$1
requirements=$2

if output=$("$pip" install --quiet --prefer-binary -r "$requirements" 2>&1); then exit 0; fi
printf '%s\n' "$output" | tail -n 3

grep -Eo '^[^#[:space:]]+' "$requirements" | while read -r requirement; do
    "$pip" install --quiet --prefer-binary "$requirement" >/dev/null 2>&1 </dev/null ||
        echo "$requirement cannot be installed for this Python: its tests will be skipped"
done
exit 0
