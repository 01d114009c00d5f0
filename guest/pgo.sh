#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# usage: guest/pgo.sh
#
# Renews guest/profile/guest.profdata, by which the guest's machine code is optimised: builds the guest with counters,
# runs guest/profile/train.py in it and merges what was counted. Functions keep their names from wasm to machine code,
# so the profile stays useful when some of them change. Takes some minutes.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
build=$root/build-pgo

CODEMODE_INSTRUMENT=1 "$here/build.sh" "$build/guest"
[ -e "$build/build.ninja" ] || meson setup "$build" "$root" -Dinstrumented=true
ninja -C "$build" codemode-profile
echo "stage: train"
"$build/codemode-profile" "$build/guest/stdlib.tar" "$here/profile/train.py" "$build/guest.profraw" 2>"$build/train.log" ||
    { tail "$build/train.log" && exit 1; }
llvm-profdata-19 merge -o "$here/profile/guest.profdata" "$build/guest.profraw"
ls -l "$here/profile/guest.profdata"
