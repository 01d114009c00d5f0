#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# usage: guest/build.sh OUT_DIR
#
# Builds what the sandbox is linked with and what its image is made of:
#
#   OUT_DIR/code/       the guest as machine code: part*.c.o, table.c.o, data.c.o, guest.h
#   OUT_DIR/id.c        the hash of that code and the gate, by which images and programs know each other
#   OUT_DIR/stdlib.tar  the guest's /usr: standard library, driver, time zones
#   OUT_DIR/tests       CPython's Lib/test, for the conformance run
#   OUT_DIR/manifest    what all of it was made from
#
# Each step is kept in the cache under the hash of everything that goes into it, so a fresh clone on the same
# machine builds nothing; an interrupted step goes on where it stopped, or begins anew. The steps, with the time
# they take on two cores: sources (10 s), python (3 min: CPython for the build and for wasm, and its libraries),
# wasm (3 s), code (1 to 3 min: wasm2c, machine code), stdlib (3 s).
#
# Environment: CODEMODE_CACHE; CODEMODE_INSTRUMENT=1 builds code that records an execution profile (guest/pgo.sh).
set -euo pipefail
unset CC CXX CFLAGS CPPFLAGS LDFLAGS AR RANLIB PYTHONPATH PYTHONHOME

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${CODEMODE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/codemode}
jobs=$(nproc)
profile=guest/profile/guest.profdata

say() { echo "stage: $*"; }
die() {
    echo "error: $*" >&2
    exit 1
}
hash_of() { sha256sum | cut -c1-20; }
hash_files() { (cd "$root" && find "$@" -type f ! -name '*.pyc' | LC_ALL=C sort | xargs sha256sum); }

# cached NAME KEY FUNCTION: leaves the finished folder in $cache/NAME-KEY and its path in $done_dir. One build at a time;
# who finds everything finished waits for nobody.
cached() {
    done_dir=$cache/$1-$2
    [ ! -d "$done_dir" ] || return 0
    exec 9>"$cache/guest.lock"
    flock 9
    if [ ! -d "$done_dir" ]; then
        mkdir -p "$done_dir.part"
        (cd "$done_dir.part" && "$3")
        mv "$done_dir.part" "$done_dir"
    fi
    exec 9>&-
}

# ---- tools: the wasm side of clang, with Debian's wasi-libc in a folder of its own

wasm_tools() {
    sysroot=$sources/sysroot/usr
    wasm_cc="clang-19 --target=wasm32-wasi --sysroot=$sysroot -isystem $sysroot/include/wasm32-wasi"
    wasm_flags="-O2 -g0 -mbulk-memory -mnontrapping-fptoint -msign-ext -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_GETPID
        -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_MMAN"
    wasm_ld="-L$sysroot/lib/wasm32-wasi -B$sysroot/lib/wasm32-wasi"
}

# archive NAME FLAGS SOURCE...: compiles into lib/libNAME.a
archive() {
    local name=$1 flags
    flags=$(echo $2) # one line
    shift 2
    mkdir -p "obj/$name" lib
    printf '%s\n' "$@" | xargs -P"$jobs" -I{} sh -c \
        "$wasm_cc $(echo $wasm_flags) $flags -c {} -o obj/$name/\$(basename {} .c).o" || die "lib$name does not compile"
    llvm-ar-19 rcs "lib/lib$name.a" "obj/$name/"*.o
}

# ---- step: python

build_host_python() {
    say "CPython for the build itself"
    mkdir -p host && cd host
    [ -e Makefile ] || "$sources/src/python3.13/configure" -q --disable-test-modules --without-ensurepip \
        CC=gcc CFLAGS="-O1 -g0" >configure.log 2>&1 || die "configure failed: $PWD/configure.log"
    make -j"$jobs" python >make.log 2>&1 || die "CPython for the build failed: $PWD/make.log"
    cd ..
}

build_libraries() {
    say "zlib, bzip2, xz, sqlite for wasm"
    local src=$sources/src
    mkdir -p include
    cp "$src/zlib/zlib.h" "$src/zlib/zconf.h" "$src/bzip2/bzlib.h" include/
    cp -r "$src/xz-utils/src/liblzma/api/." include/
    archive z "-I$src/zlib -DHAVE_UNISTD_H -Wno-deprecated-non-prototype" \
        "$src"/zlib/{adler32,compress,crc32,deflate,inflate,infback,inftrees,inffast,trees,uncompr,zutil}.c
    archive bz2 "-I$src/bzip2" "$src"/bzip2/{blocksort,huffman,crctable,randtable,compress,decompress,bzlib}.c
    if [ ! -e lib/liblzma.a ]; then
        mkdir -p xz
        (cd xz && CC="$wasm_cc" CFLAGS="$(echo $wasm_flags)" AR=llvm-ar-19 RANLIB=llvm-ranlib-19 \
            "$src/xz-utils/configure" -q --host=wasm32-wasi --disable-threads --disable-shared --disable-nls \
            --disable-{xz,xzdec,lzmadec,lzmainfo,scripts,doc,sandbox,assembler} >configure.log 2>&1 &&
            make -j"$jobs" -C src/liblzma >make.log 2>&1) || die "liblzma failed: $PWD/xz/*.log"
        cp xz/src/liblzma/.libs/liblzma.a lib/
    fi
    if [ ! -e lib/libsqlite3.a ]; then
        mkdir -p sqlite
        (cd sqlite && "$src/sqlite3/configure" -q >configure.log 2>&1 && make sqlite3.c >make.log 2>&1) ||
            die "sqlite's amalgamation failed: $PWD/sqlite/*.log"
        cp sqlite/sqlite3.h sqlite/sqlite3ext.h include/
        archive sqlite3 "-Isqlite -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_OMIT_WAL -DSQLITE_THREADSAFE=0
            -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_MATH_FUNCTIONS -DSQLITE_DEFAULT_MEMSTATUS=0
            -DLONGDOUBLE_TYPE=double -DSQLITE_TEMP_STORE=2 -DSQLITE_DEFAULT_UNIX_VFS='\"unix\"'" sqlite/sqlite3.c
    fi
}

configure_python() {
    local lib=$PWD/../lib include=$PWD/../include
    # pkg-config must find nothing: what it knows is the machine's own, not the guest's.
    CONFIG_SITE="../python/Tools/wasm/config.site-wasm32-wasi $here/config.site" PKG_CONFIG_LIBDIR=/nonexistent \
        CC="$wasm_cc" AR=llvm-ar-19 RANLIB=llvm-ranlib-19 LDFLAGS="$wasm_ld" CFLAGS="$(echo $wasm_flags)" \
        CPPFLAGS="-I$include" ZLIB_CFLAGS="-I$include" ZLIB_LIBS="-L$lib -lz" BZIP2_CFLAGS="-I$include" \
        BZIP2_LIBS="-L$lib -lbz2" LIBLZMA_CFLAGS="-I$include" LIBLZMA_LIBS="-L$lib -llzma" \
        LIBSQLITE3_CFLAGS="-I$include" LIBSQLITE3_LIBS="-L$lib -lsqlite3" \
        ../python/configure -q --host=wasm32-wasi --build=x86_64-linux-gnu --with-build-python="$PWD/../host/python" \
        --with-pymalloc --without-ensurepip --disable-test-modules --prefix=/usr >configure.log 2>&1
}

build_wasm_python() {
    say "CPython for wasm"
    if [ ! -e python/.patched ]; then
        rm -rf python && cp -r "$sources/src/python3.13" python
        local file
        for file in "$here"/patches/*.patch; do
            patch -s -d python -p1 <"$file"
        done
        cp "$here/patches/thread_pthread_stubs.h" python/Python/
        cp "$here/patches/cm_stack.h" python/Include/
        touch python/.patched
    fi
    mkdir -p wasm && cd wasm
    [ -e Makefile ] || configure_python || die "configure failed: $PWD/configure.log"
    make -j"$jobs" libpython3.13.a Modules/config.o >make.log 2>&1 || die "CPython for wasm failed: $PWD/make.log"
    # The target runs sysconfig in passing and then looks for a python.wasm, which we do not link.
    touch python.wasm
    make pybuilddir.txt >sysconfig.log 2>&1 || true
    cp "$(find build -name '_sysconfigdata_*.py' | head -n 1)" ../ || die "no sysconfig data: $PWD/sysconfig.log"
    cd ..
}

step_python() {
    build_host_python
    build_libraries
    build_wasm_python
    rm -rf obj xz sqlite
    find host wasm -name '*.o' ! -path 'wasm/Modules/config.o' -delete
}

# ---- step: wasm

step_wasm() {
    say "link the guest"
    local name objects=()
    for name in fs tar wasi sched heap calls content main; do
        $wasm_cc $wasm_flags -Wall -Wextra -Werror -Wno-int-to-pointer-cast -Wno-unused-parameter -Wno-sign-compare \
            -I"$python/wasm" -I"$python/python/Include" -I"$python/python/Include/internal" -I"$root/tables" \
            -c "$here/src/$name.c" -o "$name.o"
        objects+=("$name.o")
    done
    # -O0: the code is optimised already; at higher levels the driver would run a wasm-opt that drops all names.
    $wasm_cc -O0 -mexec-model=reactor "${objects[@]}" "$python/wasm/Modules/config.o" "$python/wasm/libpython3.13.a" \
        -o guest.wasm $wasm_ld -L"$python/lib" -lz -lbz2 -llzma -lsqlite3 "$python"/wasm/Modules/_hacl/*.a \
        "$python/wasm/Modules/expat/libexpat.a" "$python/wasm/Modules/_decimal/libmpdec/libmpdec.a" -lm \
        -lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks -ldl \
        -z stack-size=8388608 -Wl,--stack-first -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
    rm -f "${objects[@]}"
}

# ---- step: code

# wabt of one fixed version: translate.py rewrites exactly the C that this one writes.
wasm2c() { "$sources/tools/usr/bin/wasm2c" "$@"; }

# The last flag gives every bytecode a dispatch jump of its own, which clang 19 would merge into one: about 7 % faster.
# No stack protector and no CET: a frozen stack must mean the same in another process. x86-64-v2: any server since 2010.
# Stack clash protection: no frame, however large, may step over the guard page into the neighbour's stack.
native_flags() {
    echo "-O2 -march=x86-64-v2 -fno-stack-protector -fstack-clash-protection -fcf-protection=none -fno-pie -fno-pic -fomit-frame-pointer
        -fno-asynchronous-unwind-tables -fvisibility=hidden -w -std=gnu17 -fno-math-errno -I$root/src/guest
        -mllvm -tail-dup-pred-size=10000"
    if [ -n "${CODEMODE_INSTRUMENT:-}" ]; then
        echo "-fprofile-generate -fprofile-update=single"
    elif [ -n "$(profile_in_use)" ]; then
        echo "-fprofile-use=$root/$(profile_in_use)"
    fi
}

profile_in_use() { [ -n "${CODEMODE_INSTRUMENT:-}" ] || [ ! -e "$root/$profile" ] || echo "$profile"; }

check_objects() {
    local undefined
    ! objdump -d part*.o | grep -q '%fs:' || die "the guest's code uses thread-local storage of the process"
    undefined=$(nm -u part*.o table.c.o | awk '$1 == "U" { print $2 }' | sort -u |
        grep -v '^\(w2c_\|Z_hostZ_\|wasm_rt_\|cm_guest\|__llvm_prof\)' | tr '\n' ' ')
    # Leaf functions of libc and libm only: libc is never below a gate.
    for name in $undefined; do
        case $name in
        memcpy | memmove | memset | ceil | ceilf | floor | floorf | trunc | truncf | sqrt | sqrtf | rint | rintf | \
            nearbyint | nearbyintf | fabs | fabsf | copysign | copysignf) ;;
        *) die "the guest's code needs $name of the host" ;;
        esac
    done
}

step_code() {
    say "wasm to C"
    wasm2c "$wasm/guest.wasm" -n guest -o guest.c
    rm -rf c && python3 "$here/build/translate.py" guest.c c 4
    say "C to machine code"
    ls c/*.c | xargs -P"$jobs" -I{} sh -c \
        "clang-19 $(echo $(native_flags)) -c {} -o \$(basename {}).o" || die "the guest's C does not compile"
    [ -n "${CODEMODE_INSTRUMENT:-}" ] || check_objects
    cp c/guest.h .
    rm -rf c guest.c
}

# ---- step: stdlib

step_stdlib() {
    say "standard library"
    PYTHONPATH="$python/python/Lib" "$python/host/python" "$here/build/stdlib.py" "$python/python/Lib" \
        "$here/driver/codemode_driver" "$python"/_sysconfigdata_*.py /usr/share/zoneinfo stdlib.tar
}

# Left alone when it is the same, so that nothing is linked again.
write_id() {
    local id
    id=$(cat "$1"/code/part*.o "$1/code/table.c.o" "$root/src/guest/"{gate.c,state.h,layout.h} | sha256sum | cut -c1-64)
    echo "const char cm_guest_id[65] = \"$id\";" >"$1/id.c.part"
    cmp -s "$1/id.c.part" "$1/id.c" || mv "$1/id.c.part" "$1/id.c"
    rm -f "$1/id.c.part"
}

main() {
    [ $# -eq 1 ] || die "usage: guest/build.sh OUT_DIR"
    mkdir -p "$1" "$cache"
    local out key
    out=$(cd "$1" && pwd)
    say "sources"
    sources=$("$here/fetch.sh" "$cache")
    wasm_tools

    key=$( (hash_files guest/patches guest/config.site; sed -n '/^# ---- tools/,/^# ---- step: wasm/p' "$here/build.sh"
        clang-19 --version | head -n 1; grep -v '^binary wabt' "$sources/manifest") | hash_of)
    cached python "$key" step_python
    python=$done_dir

    key=$( (echo "$key"; hash_files guest/src tables/fields.def
        sed -n '/^# ---- step: wasm/,/^# ---- step: code/p' "$here/build.sh") | hash_of)
    cached wasm "$key" step_wasm
    wasm=$done_dir

    # By the module itself, not its sources: what does not change the module need not be compiled again.
    key=$( (sha256sum <"$wasm/guest.wasm"; echo "${CODEMODE_INSTRUMENT:-}"
        hash_files guest/build/translate.py src/guest/layout.h src/guest/wasm-rt.h $(profile_in_use)
        sed -n '/^# ---- step: code/,/^# ---- step: stdlib/p' "$here/build.sh"; wasm2c --version
        clang-19 --version | head -n 1) | hash_of)
    cached code "$key" step_code
    ln -sfn "$done_dir" "$out/code"
    write_id "$out"

    key=$( (basename "$python"; hash_files guest/driver guest/build/stdlib.py; dpkg-query -W tzdata) | hash_of)
    cached stdlib "$key" step_stdlib
    ln -sfn "$done_dir/stdlib.tar" "$out/stdlib.tar"
    ln -sfn "$python/python/Lib/test" "$out/tests"
    cat "$sources/manifest" >"$out/manifest"
    { clang-19 --version | head -n 1; echo "wasm2c $(wasm2c --version)"; } >>"$out/manifest"
}

main "$@"
