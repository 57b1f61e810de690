#!/usr/bin/env bash
# Puts CPythons that this Debian does not carry into FOLDER, without touching the system: no root, no chroot.
#
#     tools/get_pythons.sh FOLDER [3.14] [3.15] [3.14t]        default: 3.14 3.15
#     PYTHONS=FOLDER make test-all                             then tests on them too
#
# 3.14, 3.15: the packages of a newer suite (SUITE, default sid) from the mirror that apt uses here, with every
# library they need down to libc, unpacked into FOLDER/system. The interpreter is told to look for its loader and
# libraries there; programs that it starts use the machine's own. Needs patchelf.
# 3.14t: the free-threaded build, which Debian does not package, made of Debian's source package with this
# machine's compiler and libraries, into FOLDER/3.14t. Needs gcc, make, dpkg-dev and the -dev packages of the
# modules that are wanted (libssl-dev, libffi-dev, libsqlite3-dev, zlib1g-dev ...).
#
# FOLDER/bin/pythonX.Y is what find_python.sh looks for; one that is there and works is left alone, so that
# running this twice does nothing twice. To renew: delete the folder.
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 1 ] && [[ $1 != -* ]] || usage
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.14 3.15)
suite=${SUITE:-sid}
apt=$folder/apt
system=$folder/system
machine=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)

need() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null && continue
        echo "$command is missing: apt-get install ${package_of[$command]:-$command}" >&2
        exit 1
    done
}
declare -A package_of=([dpkg-source]=dpkg-dev [apt-get]=apt [make]=make)

# apt with a state of its own: nothing is installed as far as it knows, so it fetches whole sets of packages.
private_apt() {
    local command=$1
    shift
    "$command" -q -o Dir::Etc::SourceList="$apt/$suite.sources" -o Dir::Etc::SourceParts=/nonexistent \
        -o Dir::Etc::Preferences=/nonexistent -o Dir::Etc::PreferencesParts="$apt/preferences" \
        -o Dir::State="$apt/state" -o Dir::State::Status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

prepare_apt() {
    [ ! -e "$apt/$suite.updated" ] || return 0
    local mirror
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')
    [ -n "$mirror" ] || { echo "apt knows no Debian mirror here: run apt-get update first." >&2; exit 1; }
    mkdir -p "$apt"/{preferences,state/lists/partial,cache/archives/partial}
    : >"$apt/status"
    printf '%s\n' "Types: deb deb-src" "URIs: $mirror" "Suites: $suite" "Components: main" \
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" >"$apt/$suite.sources"
    private_apt apt-get update
    touch "$apt/$suite.updated"
}

works() {
    "$folder/bin/python$1" -c 'import asyncio, ctypes, sqlite3, ssl, venv, test.test_asyncio' 2>/dev/null
}

# Packages, unpacked.
unpack() {
    local version=$1 archive python
    python=$system/usr/bin/python$version
    need apt-get dpkg-deb patchelf
    prepare_apt
    # Maintainer scripts do not run, so what only they need may stay away.
    private_apt apt-get clean
    private_apt apt-get install --yes --no-install-recommends --download-only \
        "python$version" "python$version-dev" "python$version-venv" "libpython$version-testsuite"
    mkdir -p "$system"
    for archive in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$archive" "$system"; done
    # DT_RPATH, unlike RUNPATH, holds for the libraries of libraries too, extension modules included.
    patchelf --set-interpreter "$(find "$system/usr/lib/$machine" -maxdepth 1 -name 'ld-linux*.so.*' | head -n 1)" \
        --force-rpath --set-rpath "$system/usr/lib/$machine" "$python"
    # pip's wheel, for `python -m venv`.
    sed -i "s|'/usr/share/python-wheels/'|'$system/usr/share/python-wheels/'|" \
        "$system/usr/lib/python$version"/_sysconfigdata_*.py
    ln -sf "$python" "$folder/bin/python$version"
}

# The source package, built without the GIL.
build_free_threaded() {
    local version=${1%t} sources=$folder/source
    need apt-get dpkg-source gcc make
    prepare_apt
    rm -rf "$sources"
    mkdir -p "$sources"
    if ! (cd "$sources" && private_apt apt-get source --only-source "python$version"); then
        echo "The mirror has no source package of Python $version: no $1." >&2
        return 1
    fi
    (
        cd "$sources/python$version"-*/
        # Debian's source carries no wheels of pip; its own package of them serves.
        ./configure --quiet --disable-gil --prefix="$folder/$1" --with-ensurepip=no \
            --with-wheel-pkg-dir="$system/usr/share/python-wheels"
        nice make --quiet -j "$(nproc)"
        make --quiet install
    )
    rm -rf "$sources"
    if [ ! -e "$system/usr/share/python-wheels" ]; then
        (cd "$apt" && private_apt apt-get download python3-pip-whl)
        dpkg-deb -x "$apt"/python3-pip-whl_*.deb "$system"
    fi
    ln -sf "$folder/$1/bin/python$1" "$folder/bin/python$1"
}

mkdir -p "$folder/bin"
status=0
for version in "${versions[@]}"; do
    if works "$version"; then
        :
    elif [[ $version =~ ^3\.[0-9]+t$ ]]; then
        build_free_threaded "$version" || status=1
    elif [[ $version =~ ^3\.[0-9]+$ ]]; then
        unpack "$version"
    else
        usage
    fi
    if works "$version"; then
        echo "$("$folder/bin/python$version" -VV | head -n 1) in $folder/bin/python$version"
    else
        echo "python$version does not work." >&2
        status=1
    fi
done
exit $status
