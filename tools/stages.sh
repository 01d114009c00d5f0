# SPDX-License-Identifier: Apache-2.0
# Stages: one line per stage with its number and time; the stage's output goes to build/logs/NAME.log.
# A running stage may print lines "stage: TEXT"; a terminal shows the newest one beside the clock.

stages_begin() {
    stage_count=$1
    stage_number=0
    stage_pid=
    mkdir -p "$logs"
    trap stage_interrupted INT TERM
}

die() {
    echo "error: $*" >&2
    exit 1
}

# Each stage runs in a process group of its own, so that an interrupt reaches all of it, and only it.
stage_interrupted() {
    trap - INT TERM
    [ -z "$stage_pid" ] || kill -TERM -- "-$stage_pid" 2>/dev/null || true
    echo >&2
    echo "interrupted; the same command goes on from here" >&2
    exit 130
}

stage_show() { # label seconds log
    local note
    note=$(grep -a '^stage: ' "$3" 2>/dev/null | tail -n 1 | cut -c8-60 || true)
    printf '\r\033[K%s … %d s%s' "$1" "$2" "${note:+  ($note)}"
}

stage_wait() { # label log
    local start=$SECONDS shown=0
    while kill -0 "$stage_pid" 2>/dev/null; do
        if [ -t 1 ] && [ $((SECONDS - start)) -gt $shown ]; then
            shown=$((SECONDS - start))
            stage_show "$1" $shown "$2"
        fi
        sleep 0.1
    done
}

# stage NAME COMMAND...: runs it; on failure prints the end of its log and ends ./dev, unless stage_soft is set.
stage() {
    local name=$1 log=$logs/${1//[^a-z0-9]/-}.log start=$EPOCHREALTIME label status=0
    shift
    stage_number=$((stage_number + 1))
    label="[$stage_number/$stage_count] $name"
    [ ! -t 1 ] || printf '%s …' "$label"
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    stage_pid=$!
    set +m
    stage_wait "$label" "$log"
    wait "$stage_pid" || status=$?
    stage_pid=
    [ ! -t 1 ] || printf '\r\033[K'
    printf '%s … %s%s\n' "$label" "$(stage_seconds "$start")" "$([ $status -eq 0 ] || echo " FAILED")"
    [ $status -eq 0 ] || stage_failed "$name" "$log"
    return $status
}

stage_seconds() {
    awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }'
}

stage_failed() {
    echo "---- end of ${2#"$root"/}" >&2
    tail -n "${stage_tail:-30}" "$2" >&2
    echo "----" >&2
    [ -n "${stage_soft:-}" ] || die "stage '$1' failed; the whole log is in ${2#"$root"/}"
}
