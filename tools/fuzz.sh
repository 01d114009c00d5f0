# SPDX-License-Identifier: Apache-2.0
# Fuzzers: the libFuzzer programs of tests/fuzz, built by clang with both sanitizers in a folder of their own.
# tests/fuzz/fuzzers.txt lists them; corpora are in tests/fuzz/corpus/NAME, dictionaries in tests/fuzz/NAME.dict.

fuzz_build=$root/build-fuzz
fuzz_names() { awk '!/^#/ && NF { print $1 }' tests/fuzz/fuzzers.txt; }
fuzz_column() { awk -v name="$1" -v column="$2" '!/^#/ && $1 == name { print $column }' tests/fuzz/fuzzers.txt; }

fuzz_compile() {
    mkdir -p "$fuzz_build"
    [ -e "$fuzz_build/guest" ] || ln -s ../build/guest "$fuzz_build/guest"
    CC=clang-19 configure "$fuzz_build" -Dfuzzers=true -Db_sanitize=address,undefined -Db_lundef=false \
        "-Dc_args=-fsanitize=fuzzer-no-link -fno-sanitize-recover=all" &&
        ninja -C "$fuzz_build" fuzzers
}

# One fuzzer over its corpus; new inputs go to a folder of their own, findings to the other.
fuzz_run() { # name new-inputs findings libfuzzer-option...
    local name=$1 inputs=$2 findings=$3 dictionary=tests/fuzz/$1.dict
    shift 3
    mkdir -p "$inputs" "$findings"
    ASAN_OPTIONS=detect_leaks=1:symbolize=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
        ASAN_SYMBOLIZER_PATH=$(command -v llvm-symbolizer-19) \
        "$fuzz_build/tests/fuzz/fuzz_$name" -timeout=60 -rss_limit_mb=2048 -use_value_profile=0 \
        -max_len="$(fuzz_column "$name" 3)" -artifact_prefix="$findings/$name-" \
        $([ ! -e "$dictionary" ] || echo "-dict=$dictionary") "$@" "$inputs" "tests/fuzz/corpus/$name" </dev/null
}

# The short run of ./dev test: the corpus and then a number of new inputs that is the same on every machine, from the
# same seed. One result per fuzzer.
suite_fuzzing() {
    fuzz_compile || return 1
    local tap=$results/fuzzing.tap scratch=$fuzz_build/short name number=0 failed=0
    rm -rf "$scratch"
    echo "1..$(fuzz_names | wc -l)" >"$tap"
    for name in $(fuzz_names); do
        number=$((number + 1))
        echo "---- $name"
        if fuzz_run "$name" "$scratch/$name" "$fuzz_build/findings" -seed=1 -runs="$(fuzz_column "$name" 2)" 2>&1 |
            grep -v -e '^INFO' -e NEW -e REDUCE -e pulse && [ "${PIPESTATUS[0]}" -eq 0 ]; then
            echo "ok $number - $name" >>"$tap"
        else
            echo "not ok $number - $name" >>"$tap"
            failed=1
        fi
    done
    rm -rf "$scratch"
    return $failed
}

fuzz_growth() { # log: the corpus' coverage, and what came of the run
    awk '/INITED/ { for (i = 1; i < NF; i++) if ($i == "cov:") first = $(i + 1) }
         /cov:/   { for (i = 1; i < NF; i++) { if ($i == "cov:") last = $(i + 1); if ($i == "corp:") corpus = $(i + 1) } }
         /^Done|stat::number_of_executed_units/ { runs = $2 }
         END { printf "%s runs, coverage %s -> %s, %s inputs", runs, first, last, corpus }' "$1"
}

# A long run; the inputs that it finds are kept in build-fuzz/corpus and used again by the next one.
fuzz_long() { # name seconds
    local log=$logs/fuzz-$1.log status=0
    fuzz_run "$1" "$fuzz_build/corpus/$1" "$fuzz_build/findings" -max_total_time="$2" -print_final_stats=1 \
        >"$log" 2>&1 || status=$?
    printf '%-10s %s%s\n' "$1" "$(fuzz_growth "$log")" "$([ $status -eq 0 ] || echo "  FAILED")"
    [ $status -eq 0 ] && return
    grep -a -m 5 -e 'broken promise' -e 'ERROR: ' -e 'runtime error' -e '^SUMMARY' "$log" || tail -n 20 "$log"
    echo "  the input is in build-fuzz/findings, the whole log in build/logs/fuzz-$1.log; run it again with"
    echo "  build-fuzz/tests/fuzz/fuzz_$1 build-fuzz/findings/FILE, and check it in as tests/fuzz/corpus/$1/REASON"
    return 1
}

# Adds to the checked-in corpus what long runs have found and what reaches code that the corpus does not: few inputs,
# one per new edge. Their names say no more than that; whoever knows better renames them.
fuzz_merge() { # name
    local folder=tests/fuzz/corpus/$1 found number=1
    mkdir -p "$folder" "$fuzz_build/corpus/$1"
    "$fuzz_build/tests/fuzz/fuzz_$1" -merge=1 -set_cover_merge=1 -use_counters=0 -max_len="$(fuzz_column "$1" 3)" \
        "$folder" "$fuzz_build/corpus/$1" >"$logs/fuzz-merge-$1.log" 2>&1 </dev/null || return 1
    for found in "$folder"/*; do
        [[ ${found##*/} =~ ^[0-9a-f]{40}$ ]] || continue
        while [ -e "$folder/found-$number" ]; do number=$((number + 1)); done
        mv "$found" "$folder/found-$number"
    done
    echo "$1: $(find "$folder" -type f | wc -l) inputs, $(du -sb "$folder" | cut -f 1) bytes in $folder"
}

verb_fuzz() {
    local seconds=60 merge= names=() name failed=0
    while [ $# -gt 0 ]; do
        case $1 in
        --seconds) [[ ${2:-} =~ ^[0-9]+$ ]] || usage_error "--seconds takes a number"; seconds=$2; shift ;;
        --merge) merge=yes ;;
        -*) usage_error "fuzz takes names, --seconds N and --merge, not '$1'" ;;
        *) fuzz_names | grep -qx -- "$1" || usage_error "no fuzzer '$1'; there are: $(fuzz_names | xargs)"; names+=("$1") ;;
        esac
        shift
    done
    [ ${#names[@]} -gt 0 ] || mapfile -t names < <(fuzz_names)
    stages_begin 4
    setup_and_build
    stage "compile fuzzers" fuzz_compile
    for name in "${names[@]}"; do
        if [ -n "$merge" ]; then fuzz_merge "$name"; else fuzz_long "$name" "$seconds"; fi || failed=1
    done
    return $failed
}
