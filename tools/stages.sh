# SPDX-License-Identifier: Apache-2.0
# Stages: one line per stage with its number and time; the stage's output goes to build/logs/NAME.log.
# A running stage may print lines "stage: TEXT"; a terminal shows the newest one beside the clock.

stages_begin() {
    stage_count=$1
    stage_number=0
    stage_pid=
    ahead_pid=
    mkdir -p "$logs"
    trap stage_interrupted INT TERM
}

die() {
    echo "error: $*" >&2
    exit 1
}

# Each stage runs in a process group of its own, so that an interrupt reaches all of it, and only it.
stage_interrupted() {
    local group
    trap - INT TERM
    for group in $stage_pid $ahead_pid; do kill -TERM -- "-$group" 2>/dev/null || true; done
    echo >&2
    echo "interrupted; the same command goes on from here" >&2
    exit 130
}

stage_show() { # label seconds log
    local note
    note=$(grep -a '^stage: ' "$3" 2>/dev/null | tail -n 1 | cut -c8-60 || true)
    printf '\r\033[K%s … %d s%s' "$1" "$2" "${note:+  ($note)}"
}

stage_log() { echo "$logs/${1//[^a-z0-9]/-}.log"; } # name

stage_wait() { # label log condition...: waits while it holds
    local label=$1 log=$2 start=$SECONDS shown=0
    shift 2
    while "$@"; do
        if [ -t 1 ] && [ $((SECONDS - start)) -gt $shown ]; then
            shown=$((SECONDS - start))
            stage_show "$label" $shown "$log"
        fi
        sleep 0.1
    done
}

stage_runs() { kill -0 "$stage_pid" 2>/dev/null; }

# stages_ahead FUNCTION: FUNCTION calls `ahead NAME COMMAND...` for stages that only compute. They run from now on, one after
# another, on processor time that the other stages, which mostly wait, leave over. `stage NAME` in its place waits for one and reports it.
stages_ahead() {
    ahead_results=$logs/ahead
    rm -rf "$ahead_results" && mkdir "$ahead_results"
    set -m
    ahead_run "$1" </dev/null &
    ahead_pid=$!
    set +m
}

ahead_run() { # function
    trap - INT TERM
    renice -n 10 -p "$BASHPID" >/dev/null
    "$1"
}

ahead() { # name command...
    local name=$1 start=$EPOCHREALTIME status=0
    shift
    "$@" >"$(stage_log "$name")" 2>&1 &
    wait $! || status=$?
    echo "$status $(stage_seconds "$start")" >"$ahead_results/part"
    mv "$ahead_results/part" "$ahead_results/$name"
}

ahead_runs() { [ ! -e "$ahead_results/$1" ] && kill -0 "$ahead_pid" 2>/dev/null; } # name

# stage NAME COMMAND...: runs it, or waits for it if it runs ahead; on failure prints the end of its log and ends ./dev, unless
# stage_soft is set.
stage() {
    local name=$1 log start=$EPOCHREALTIME label status=0 seconds=
    log=$(stage_log "$name")
    shift
    stage_number=$((stage_number + 1))
    label="[$stage_number/$stage_count] $name"
    [ ! -t 1 ] || printf '%s …' "$label"
    if [ $# -eq 0 ]; then
        stage_wait "$label" "$log" ahead_runs "$name"
        read -r status seconds 2>/dev/null <"$ahead_results/$name" || status=1 # no result: what ran ahead has been killed
    else
        set -m
        "$@" >"$log" 2>&1 </dev/null &
        stage_pid=$!
        set +m
        stage_wait "$label" "$log" stage_runs
        wait "$stage_pid" || status=$?
        stage_pid=
        seconds=$(stage_seconds "$start")
    fi
    [ ! -t 1 ] || printf '\r\033[K'
    printf '%s … %s%s\n' "$label" "$seconds" "$([ $status -eq 0 ] || echo " FAILED")"
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
