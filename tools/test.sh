# SPDX-License-Identifier: Apache-2.0
# ./dev test: every suite leaves a result file in build/results, tools/summary.py adds them up.

suite_unit() { # folder filter
    local names=()
    if [ -n "$2" ]; then
        mapfile -t names < <(meson test -C "$1" --no-rebuild --list 2>/dev/null | sed 's/.* \/ //' | grep -F -- "$2")
        [ ${#names[@]} -gt 0 ] || return 0
    fi
    rm -f "$1/meson-logs/testlog.json"
    local status=0
    CMOCKA_MESSAGE_OUTPUT=TAP meson test -C "$1" --no-rebuild --print-errorlogs "${names[@]}" || status=$?
    cp "$1/meson-logs/testlog.json" "$results/unit.json"
    return $status
}

# pytest's own exit code 5 (nothing collected) is no failure under a filter: the summary refuses an empty whole.
# Most tests wait for something: three files at a time leave two processors time for what runs ahead. Tests of a file, which
# share their server, stay together.
suite_pytest() { # name folder build filter
    local status=0
    CODEMODE_BUILD=$3 PYTHONPATH=$root/sdk/python PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest -q -p no:cacheprovider -n 3 --dist loadfile -rfEs --junitxml "$results/$1.xml" ${4:+-k "$4"} "$2" || status=$?
    [ -z "$4" ] || [ $status -ne 5 ] || status=0
    return $status
}

suite_restricted() {
    /usr/bin/python3 tests/restricted/run.py "$build" "$results/restricted.xml"
}

suite_driver() { # filter
    /usr/bin/python3 tools/driver_tests.py "$build/codemode" "$results/driver.tap" ${1:+"$1"}
}

suite_conformance() {
    CODEMODE_BUILD=$build /usr/bin/python3 tests/conformance/run.py --quick --junit "$results/conformance.xml"
}

suite_torture() {
    CODEMODE_BUILD=$build /usr/bin/python3 tests/conformance/run.py --torture --quick --junit "$results/torture.xml"
}

suite_lint() {
    lint_all "$results/lint.tap"
    ! grep -q '^not ok' "$results/lint.tap"
}

# Runs every suite to its end, also after a failure, so that one look shows all of it.
suite() { # label name command...
    local label=$1 name=$2
    shift 2
    suites+=("$name")
    stage_soft=yes stage_tail=60
    stage "$label" "$@" || echo "$name" >>"$results/failed"
    stage_soft='' stage_tail=
}

# A sanitizer build is for the host programs; it takes the sandbox and the guest of the plain build.
sanitizer_build() { # address|undefined folder
    mkdir -p "$2"
    [ -e "$2/guest" ] || ln -s ../build/guest "$2/guest"
    ln -sf ../build/codemode-sandbox "$2/codemode-sandbox"
    ln -sf ../build/codemode-prober "$2/codemode-prober"
    # Without recovery: the servers of the end-to-end tests get no environment that could say so.
    compile "$2" -Db_sanitize="$1" -Db_lundef=false -Dc_args=-fno-sanitize-recover=all
}

san_build() { sanitizer_build address,undefined "$root/build-san"; }

# The whole of the end-to-end tests once more, the gateway under both sanitizers: in CI, for it takes minutes.
suite_sanitized() {
    san_build || return 1
    RLM_DRIVERS=service CODEMODE_PATIENCE=4 suite_pytest sanitized tests/e2e "$root/build-san" ""
}

# What only computes: run ahead, while the tests wait for their servers.
computing() {
    [ "${CI:-}" != true ] || ahead "compile with sanitizers" san_build
    ahead "fuzzing" suite_fuzzing
    ahead "lint" suite_lint # last: it keeps both processors busy when no test is left
}

run_suites() { # folder filter
    [ "$1" != "$build" ] || [ -n "$2" ] || stages_ahead computing
    suite "unit tests" unit suite_unit "$1" "$2"
    suite "end-to-end tests" e2e suite_pytest e2e tests/e2e "$1" "$2"
    suite "hostile attacks" hostile suite_pytest hostile tests/hostile "$1" "$2"
    [ "$1" = "$build" ] || return 0
    suite "driver tests" driver suite_driver "$2"
    suite "client tests" sdk suite_pytest sdk sdk/python/tests "$1" "$2"
    [ -z "$2" ] || return 0
    suite "in the meanest container" restricted suite_restricted
    suite "soak" soak suite_soak
    suite "injected failures" fault suite_pytest fault tests/fault "$1" "$2"
    suite "conformance" conformance suite_conformance
    suite "freeze and thaw" torture suite_torture
    if [ "${CI:-}" = true ]; then
        stage_soft=yes stage "compile with sanitizers" || true # its suite fails then
        suite "end to end, sanitized" sanitized suite_sanitized
    fi
    suite "fuzzing" fuzzing
    suite "lint" lint
}

verb_test() {
    # What a shell starts in its background has SIGINT ignored, and so would what is tested have.
    [[ $(trap -p INT) != "trap -- '' "* ]] || exec env --default-signal=INT "$root/dev" test "$@"
    local sanitizer= filter= folder=$build
    while [ $# -gt 0 ]; do
        case $1 in
        --asan) sanitizer=address folder=$root/build-asan ;;
        --ubsan) sanitizer=undefined folder=$root/build-ubsan ;;
        -*) usage_error "test takes --asan, --ubsan and a filter, not '$1'" ;;
        *) [ -z "$filter" ] || usage_error "test takes one filter"; filter=$1 ;;
        esac
        shift
    done
    if [ -n "$sanitizer" ]; then stages_begin 7; elif [ -n "$filter" ]; then stages_begin 8; elif [ "${CI:-}" = true ]; then stages_begin 17; else stages_begin 15; fi
    setup_and_build test
    if [ -n "$sanitizer" ]; then
        stage "compile with sanitizer" sanitizer_build "$sanitizer" "$folder"
        export CODEMODE_PATIENCE=4 # the end-to-end tests stretch their deadlines by this
    fi
    results=$folder/results
    suites=()
    rm -rf "$results" && mkdir -p "$results"
    # Freed memory that the sanitizer holds back would pass for the server's.
    export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:quarantine_size_mb=8 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    run_suites "$folder" "$filter"
    /usr/bin/python3 tools/summary.py ${filter:+--filtered} "$results" "${suites[@]}"
}
