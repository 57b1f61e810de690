#!/usr/bin/env bash
# Sees to it that a redis-server is on PATH: as it is, else by apt-get when root, else by saying what to install.
#
# Never fails: the programs fall back to an embedded stand-in and say so.
set -uo pipefail

if [ -n "${REDIS_URL:-}" ] || command -v redis-server >/dev/null; then exit 0; fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing redis-server with apt-get ..."
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends redis-server
fi

if ! command -v redis-server >/dev/null; then
    echo "No redis-server here: install it (Debian: apt-get install redis-server) or set REDIS_URL." >&2
    echo "Until then the programs use an embedded stand-in." >&2
fi
exit 0
