# SPDX-License-Identifier: Apache-2.0
# Packages and building: from a checkout to build/codemode, build/codemode-sandbox and build/guest/python.img.

# Names the packages of the given groups that are neither installed nor provided by an installed package.
packages_missing() {
    dpkg-query -W -f='${db:Status-Status}|${Package}, ${Provides}\n' |
        awk -F'|' -v groups=" $* " '
            FILENAME == "-" {
                if ($1 != "installed") next
                count = split($2, names, ", *")
                for (i = 1; i <= count; i++) { sub(/ .*/, "", names[i]); have[names[i]] = 1 }
                next
            }
            /^#/ { next }
            { split($0, row, " +"); if (index(groups, " " row[2] " ") && !(row[1] in have)) print row[1] }
        ' - tools/packages.txt
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# apt-get update succeeds when it could reach nothing, so its words decide: one source that answered is enough (the
# machine may list others that do not), none at all is no network.
package_lists() { # apt-get and its options
    local said
    said=$(as_root "$@" update 2>&1) || { echo "$said" && return 1; }
    echo "$said"
    grep -Eq '^(Hit|Get):' <<<"$said"
}

# Never removes a package of the machine to make room for ours.
packages_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
    echo "stage: package lists"
    if package_lists "${apt[@]}"; then
        echo "stage: $# packages"
        as_root "${apt[@]}" install --no-install-recommends --no-remove "$@" && return
    fi
    echo "error: these packages could not be installed: $*"
    echo "Check the network and the machine's package sources (Debian 12 or 13, component main), then run this again."
    return 1
}

packages_ready() { # group...
    local missing
    missing=$(packages_missing "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing, and neither root nor sudo is at hand:" $missing
        sudo -v || die "these packages are missing, and sudo refused:" $missing
    fi
    stage packages packages_install $missing
}

configure() { # folder meson-option...
    local folder=$1
    shift
    [ ! -e "$folder/build.ninja" ] || return 0
    rm -rf "$folder/meson-private" # of a set-up that was interrupted: meson would take it for finished
    meson setup "$folder" "$@"
}

compile() { # folder meson-option...
    configure "$@" && ninja -C "$1"
}

# The stages that every verb starts with; further groups of packages may be named.
setup_and_build() {
    command -v dpkg-query >/dev/null || die "this is not Debian: dpkg-query is missing; ./dev needs Debian 12 or 13"
    packages_ready build guest "$@"
    stage_number=1
    stage guest guest/build.sh "$build/guest"
    stage compile compile "$build"
}
