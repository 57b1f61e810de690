#!/usr/bin/env bash
# Sees to it that PostgreSQL's server programs are here: as they are, else by apt-get when root, else by saying what to
# install. No server is started and none of the system's is touched: the tests make a private one.
#
# Never fails: without the programs the tests that need them are skipped and say why.
set -uo pipefail

have() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }

if have; then exit 0; fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing postgresql with apt-get ..."
    # Debian would create and start a cluster of the system's own: nobody here needs it.
    settings=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$settings" ]; then mkdir -p "${settings%/*}" && echo "create_main_cluster = false" >"$settings"; fi
    apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql \
            -o Dpkg::Options::=--force-confold
fi

if ! have; then
    echo "No PostgreSQL server here: install it (Debian: apt-get install postgresql)." >&2
    echo "Until then the tests that need one are skipped." >&2
fi
exit 0
