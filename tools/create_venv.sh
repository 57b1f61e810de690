#!/usr/bin/env bash
# Creates the virtual environment FOLDER with the Python that find_python.sh chooses, and a recent pip in it.
#
# Debian ships `venv` without `ensurepip` unless python3-venv is installed. Then the machine's own pip can put a
# pip into the new environment; failing that, root installs python3-venv and anybody else is told to.
set -euo pipefail

folder=$1
python=$("$(dirname "$0")/find_python.sh")
if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
    echo "$folder exists and is no virtual environment: not touching it." >&2
    exit 1
fi
rm -rf "$folder"

if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$folder"
elif "$python" -c 'import pip, venv' 2>/dev/null; then
    "$python" -m venv --without-pip "$folder"
    "$python" -m pip --python "$folder/bin/python" install --quiet pip
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing python3-venv with apt-get ..."
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends python3-venv
    "$python" -m venv "$folder"
else
    echo "$python can make no virtual environment. Install its venv module (Debian: apt-get install python3-venv)." >&2
    exit 1
fi

# Dependency groups (PEP 735) need pip 25.1.
"$folder/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
echo "$("$folder/bin/python" --version) in $folder"
