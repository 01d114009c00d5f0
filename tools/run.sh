# SPDX-License-Identifier: Apache-2.0
# ./dev run: the sidecar with the state example.

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ready within five seconds, or the reason why not.
sidecar_wait() { # pid port log
    local deadline=$((SECONDS + 5))
    until curl -fsS -o /dev/null --max-time 1 "http://127.0.0.1:$2/ready" 2>/dev/null; do
        if ! kill -0 "$1" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            echo "---- end of ${3#"$root"/}" >&2
            tail -n 20 "$3" >&2
            die "the sidecar did not become ready on port $2"
        fi
        sleep 0.02
    done
}

sidecar_stop() {
    [ -n "${sidecar_pid:-}" ] || return 0
    kill -TERM "$sidecar_pid" 2>/dev/null || true
    wait "$sidecar_pid" 2>/dev/null || true
    sidecar_pid=
}

run_example() {
    PYTHONPATH=$root/sdk/python WASM_MANAGER_SERVICE_URL=http://127.0.0.1:$1 \
        /usr/bin/python3 sdk/python/examples/state.py
}

show_how_to_try() {
    cat <<TEXT

The sidecar serves on http://127.0.0.1:$1 (log: build/logs/sidecar.log). Try it from another terminal:

  S=\$(curl -s -X POST http://127.0.0.1:$1/session | /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)["session_id"])')
  curl -s http://127.0.0.1:$1/session/\$S/execute -d '{"code": "x = 42"}'; echo
  curl -s http://127.0.0.1:$1/session/\$S/execute -d '{"code": "x * 2"}'; echo
  curl -s -X DELETE http://127.0.0.1:$1/session/\$S; echo

or  build/codemode exec -c 'sum(range(10))'   or  ./dev shell.   Ctrl-C stops the sidecar.

Recursive inference on it, with any model service that speaks as OpenAI's does (page: http://127.0.0.1:8000/ui):

  WASM_MANAGER_SERVICE_URL=http://127.0.0.1:$1 LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=... LLM_MODEL=gpt-5 build/rlm serve
TEXT
}

verb_run() {
    local once= port=${PORT:-8080} status=0
    case "$*" in
    "") ;;
    --once) once=yes ;;
    *) usage_error "run takes --once or nothing" ;;
    esac
    ! port_is_open "$port" || die "port $port is in use: stop what listens there, or choose another one: PORT=8081 ./dev run"
    stages_begin 4
    setup_and_build
    set -m # a process group of its own: Ctrl-C reaches it once, through us
    "$build/codemode" serve --port "$port" >"$logs/sidecar.log" 2>&1 </dev/null &
    sidecar_pid=$!
    set +m
    trap sidecar_stop EXIT
    trap 'exit 130' INT TERM HUP
    sidecar_wait "$sidecar_pid" "$port" "$logs/sidecar.log"
    echo "[4/4] sidecar on port $port, state example:"
    run_example "$port" || status=$?
    [ -z "$once" ] || exit $status
    [ $status -eq 0 ] || echo "the example failed with exit code $status" >&2
    show_how_to_try "$port"
    trap 'echo; echo "stopping the sidecar"; exit 0' INT TERM HUP
    wait "$sidecar_pid" || die "the sidecar ended by itself; see build/logs/sidecar.log"
}
