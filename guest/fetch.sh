#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# usage: guest/fetch.sh CACHE_DIR
#
# Brings the sources that guest/sources.lock names and prints the folder they are in:
#
#   files/      what was downloaded, each lock entry verified by its SHA-256
#   src/NAME/   one unpacked tree per source package, with Debian's patches applied
#   sysroot/    the unpacked packages for the guest's own architecture (usr/include/wasm32-wasi, usr/lib/wasm32-wasi)
#   tools/      the unpacked packages for this machine's architecture (usr/bin/wasm2c)
#   manifest    which Debian revision of each package this is
#
# Downloads go through apt, so its signatures, proxies and mirrors hold, but with a configuration and lists of
# its own: the machine's own package state is neither changed nor mixed with the other release.
# A finished folder is never touched again. An interrupted run goes on with the files that it already has.
set -euo pipefail

readonly SUITE=trixie         # sources and the sysroot
readonly TOOLS_SUITE=bookworm # programs whose output the build rewrites, so every machine must have the same ones
readonly FORMAT=1 # of the finished folder: a change of what is in it needs another number

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock_file=$here/sources.lock

say() { echo "fetch: $*" >&2; }
die() {
    echo "error: $*" >&2
    exit 1
}

lock_entries() { grep -v '^#' "$lock_file"; }
# A program is pinned for one architecture; elsewhere the same version is taken, with apt's signatures alone.
pinned_entries() {
    lock_entries | awk -v arch="$(dpkg --print-architecture)" '$2 !~ /\.deb$/ || $2 ~ "_(all|" arch ")[.]deb$"'
}
source_packages() { lock_entries | awk '$2 !~ /\.deb$/ { print $3 }' | sort -u; }
binary_packages() { lock_entries | awk '$2 ~ /\.deb$/ { split($2, name, "_"); print $3 "=" name[2] }'; } # with versions

# The machine's Debian mirror, as apt itself understands its sources (either file format, options, mirror lists).
# The mirror of the machine's own release also holds the release that we need. Updates between two point releases
# are left out on purpose: they live on other hosts, which partial mirrors often do not carry.
machine_mirror() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null |
        awk '$3 == "main" && $2 ~ /^(bookworm|trixie|oldstable|stable)$/ && $1 !~ /^cdrom:/ && !n++ { print $1 }'
}

archive_keyring() {
    local keyring
    for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [ -e "$keyring" ] && echo "$keyring" && return
    done
    die "no Debian archive keyring in /usr/share/keyrings (install the package debian-archive-keyring)"
}

write_source_list() {
    local mirror options
    mirror=$(machine_mirror)
    [ -n "$mirror" ] || die "apt knows no mirror of Debian 12 or 13 (main); add one to its sources"
    options="[signed-by=$(archive_keyring)]"
    echo "deb $options $mirror $SUITE main"
    echo "deb $options $mirror $TOOLS_SUITE main"
    echo "deb-src $options $mirror $SUITE main"
}

# Read after the machine's own configuration (apt -c), so proxies and timeouts stay as they are. Hooks of the
# machine are dropped: they look after its own lists and may fail for a user without root's rights.
write_apt_conf() {
    cat <<CONF
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$1/lists";
Dir::Cache "$1/cache";
APT::Default-Release "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::Contents-deb;
CONF
}

has_file() { echo "$2  $1/$3" | sha256sum --check --status 2>/dev/null; }

# Names each lock entry that is missing or wrong in folder $1.
unmet() {
    local sum file package
    pinned_entries | while read -r sum file package; do
        has_file "$1" "$sum" "$file" || echo "$file ($package)"
    done
}

download() {
    local part=$1 apt=$1/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$part/files"
    write_source_list >"$apt/sources.list"
    write_apt_conf "$apt" >"$apt/apt.conf"
    say "package lists of $SUITE and $TOOLS_SUITE from $(awk 'NR == 1 { print $3 }' "$apt/sources.list")"
    apt-get -c "$apt/apt.conf" -q update >&2 ||
        die "the package lists of Debian $SUITE and $TOOLS_SUITE could not be had from" \
            "$(awk 'NR == 1 { print $3 }' "$apt/sources.list"); check the network (and apt's proxy), then run this again"
    say "sources: $(source_packages | tr '\n' ' ')"
    (cd "$part/files" && apt-get -c "$apt/apt.conf" -q source --download-only --only-source $(source_packages)) >&2 ||
        die "a source package could not be had ($(unmet "$part/files" | tr '\n' ' ')); check the network, then run this again"
    (cd "$part/files" && apt-get -c "$apt/apt.conf" -q download $(binary_packages)) >&2 ||
        die "a package could not be had: $(binary_packages | tr '\n' ' '); check the network, then run this again"
}

verify() {
    local missing
    missing=$(unmet "$1/files")
    [ -z "$missing" ] && return
    rm -f "$1/downloaded"
    die "$missing: not what guest/sources.lock names. Debian's archive may hold a newer upstream version: see" \
        "$1/files, judge it, and renew the lock"
}

unpack() {
    local part=$1 package dsc deb
    rm -rf "$part/src" "$part/sysroot" "$part/tools"
    mkdir -p "$part/src" "$part/sysroot" "$part/tools"
    for package in $(source_packages); do
        dsc=$(ls -v "$part/files/${package}"_*.dsc | tail -n 1)
        say "unpack $(basename "$dsc")"
        # apt has checked every file against the signed index; the uploader's signature would need another keyring
        dpkg-source --no-check -x "$dsc" "$part/src/$package" >"$part/unpack.log" 2>&1 ||
            die "$(basename "$dsc") could not be unpacked: $(tail -n 3 "$part/unpack.log")"
        echo "source $package $(sed -n 's/^Version: //p' "$dsc") $(sha256sum <"$dsc" | cut -d' ' -f1)"
    done >"$part/manifest"
    rm -f "$part/src/"*.tar.* # copies that dpkg-source leaves
    for deb in "$part/files/"*.deb; do
        case $deb in
        *_all.deb) dpkg-deb -x "$deb" "$part/sysroot" ;;
        *) dpkg-deb -x "$deb" "$part/tools" ;;
        esac
        echo "binary $(dpkg-deb --show --showformat '${Package} ${Version}' "$deb") $(sha256sum <"$deb" | cut -d' ' -f1)"
    done >>"$part/manifest"
}

main() {
    [ $# -eq 1 ] || die "usage: guest/fetch.sh CACHE_DIR"
    local cache key final part
    mkdir -p "$1"
    cache=$(cd "$1" && pwd)
    key=$( (cat "$lock_file"; echo "$FORMAT") | sha256sum | cut -c1-16)
    final=$cache/sources-$key
    part=$final.part
    exec 9>"$cache/fetch.lock"
    flock 9
    if [ ! -d "$final" ]; then
        mkdir -p "$part"
        [ -e "$part/downloaded" ] || download "$part"
        touch "$part/downloaded"
        verify "$part"
        unpack "$part"
        rm -rf "$part/apt" "$part/downloaded" "$part/unpack.log"
        mv "$part" "$final"
    fi
    echo "$final"
}

main "$@"
