# SPDX-License-Identifier: Apache-2.0
"""RLM from outside: one face for the service and for the library, so that one test holds for both."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading

import requests

from model_server import KEY, by_model
from support import BUILD, PATIENCE, Background, eventually, resident_bytes

RLM = BUILD / "rlm"

#: Members of a run that the library calls by another name.
LIBRARY_NAMES = {"system_prompt": "custom_system_prompt", "compaction_threshold": "compaction_threshold_pct", "sampling": "sampling_args"}

#: Names of the library's exceptions, as the service's codes.
ERROR_CODES = {
    "TimeoutExceededError": "timeout_exceeded",
    "TokenLimitExceededError": "token_limit_exceeded",
    "BudgetExceededError": "budget_exceeded",
    "ErrorThresholdExceededError": "error_threshold_exceeded",
    "CancellationError": "cancelled",
}


def root(*scripts, **others):
    """A script: the root model's turns, and what other models say."""
    from model_server import turns

    return by_model({"root": turns(*scripts), **others})


@dataclasses.dataclass
class Outcome:
    """How a run has ended."""

    answer: str | None
    code: str | None = None  # of its error, as the service calls it
    error: str = ""
    partial: str = ""
    usage: dict = dataclasses.field(default_factory=dict)
    trajectory: list = dataclasses.field(default_factory=list)  # the lines of its file
    events: list = dataclasses.field(default_factory=list)  # the service's; of the library what its callbacks were told
    iterations: int | None = None

    @property
    def turns(self):
        return [line for line in self.trajectory if line["type"] == "iteration"]


@dataclasses.dataclass
class Function:
    """A custom tool that is a function; `source` defines it under `name`."""

    name: str
    source: str
    description: str = ""

    def callable(self):
        space = {}
        exec(self.source, space)  # noqa: S102
        return space[self.name]


def timeless(value):
    """Without times, of which each record has its own."""
    if isinstance(value, dict):
        return {name: timeless(member) for name, member in value.items() if name not in ("timestamp", "execution_time", "iteration_time")}
    return [timeless(member) for member in value] if isinstance(value, list) else value


def check_trajectory(lines):
    """The two kinds of lines that a visualizer reads."""
    assert lines, "the trajectory is empty"
    first, *rest = lines
    assert first["type"] == "metadata" and isinstance(first["timestamp"], str), first
    check_run(first, rest)


def check_run(first, rest):
    for name, kind in {
        "root_model": str, "max_depth": int, "max_iterations": int, "backend": str, "backend_kwargs": dict,
        "environment_type": str, "environment_kwargs": dict,
    }.items():  # fmt: skip
        assert isinstance(first[name], kind), (name, first.get(name))
    assert "other_backends" in first
    assert not [name for name in first["backend_kwargs"] if "api" in name.lower() and "key" in name.lower()]
    for number, line in enumerate(rest, 1):
        check_iteration(line, number)


def check_iteration(line, number):
    assert line["type"] == "iteration" and line["iteration"] == number, (number, line["type"], line.get("iteration"))
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line["timestamp"]), line["timestamp"]
    assert isinstance(line["prompt"], list) and line["prompt"]
    for message in line["prompt"]:
        assert set(message) >= {"role", "content"} and isinstance(message["content"], str), message
    assert isinstance(line["response"], str)
    assert isinstance(line["iteration_time"], (int, float)) and line["iteration_time"] >= 0
    assert line["final_answer"] is None or isinstance(line["final_answer"], str)
    for block in line["code_blocks"]:
        result = block["result"]
        assert isinstance(block["code"], str) and isinstance(result["stdout"], str) and isinstance(result["stderr"], str)
        assert isinstance(result["locals"], dict) and isinstance(result["execution_time"], (int, float))
        assert result["final_answer"] is None or isinstance(result["final_answer"], str)
        for call in result["rlm_calls"]:
            assert isinstance(call["root_model"], str) and isinstance(call["response"], str), call
            assert isinstance(call["execution_time"], (int, float)) and "model_usage_summaries" in call["usage_summary"]
            assert "prompt" in call
            if call["metadata"] is not None:
                check_run(call["metadata"]["run_metadata"], call["metadata"]["iterations"])


class Driver:
    """What both have in common. `models` is the scripted service, `sidecar` the one that code runs in."""

    kind = ""

    def __init__(self, models, sidecar, folder, anthropic=False):
        self.models, self.sidecar, self.folder = models, sidecar, pathlib.Path(folder)
        self.api = "anthropic" if anthropic else "openai"
        self.base_url = models.root if anthropic else models.url

    def run(self, query="What is it?", context="nothing", deadline=60, **members):
        return self.start(query, context, **members).result(deadline)

    def warm(self):
        """One run, so that what stays of any first run is there."""
        script, self.models.script = self.models.script, root("FINAL(1)")
        self.run()
        self.models.script = script
        self.models.requests.clear()

    def trajectories(self):
        """The files' lines, the newest file last."""
        files = sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        return [[json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] for path in files]

    def check_after(self):
        """After each test: no session is left, nothing has learnt the key."""
        eventually(lambda: self.sidecar.sessions() == [], "all sessions have gone")
        for path in self.folder.glob("*"):
            assert KEY not in path.read_text(encoding="utf-8", errors="replace"), f"the key is in {path}"
        for path in self.folder.glob("*"):
            path.unlink()

    def close(self):
        pass


# --- the service


class Service(Driver):
    """A `rlm serve` of our own, beside a sidecar of ours, or with one of its own (`sidecar` None)."""

    kind = "service"

    def __init__(self, models, sidecar, folder, anthropic=False, ready=True, **settings):
        super().__init__(models, sidecar, folder, anthropic)
        assert RLM.exists(), f"{RLM} is missing: build first, or name the folder in CODEMODE_BUILD"
        self.port, self._local = None, threading.local()
        self.settings = {
            "HOST": "127.0.0.1", "LLM_BASE_URL": self.base_url, "LLM_API": self.api, "LLM_API_KEY": KEY, "LLM_MODEL": "root", "LLM_RECURSIVE_MODEL": "sub",
            "LOG_LEVEL": "DEBUG", "RLM_LOG_DIR": str(folder),
        } | settings  # fmt: skip
        self.settings = {name: value for name, value in self.settings.items() if value is not None}
        if sidecar:
            self.settings["WASM_MANAGER_SERVICE_URL"] = sidecar.url
        self._log = tempfile.NamedTemporaryFile(prefix="rlm-log-")
        names = ("CODEMODE_SANDBOX", "CODEMODE_IMAGE", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        self.process = subprocess.Popen(
            [str(RLM), "serve", "--port", "0"], env=kept | self.settings, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self.wait_ready(status=200 if ready else 503)
        except BaseException:
            self.close()
            raise

    def wait_ready(self, deadline=60.0, status=200):
        def ready():
            assert self.process.poll() is None, f"the service ended with {self.process.returncode}:\n{self.log_text()}"
            self.port = self.port or self._told_port()
            return self.port and self.request("GET", "/ready", timeout=30).status_code == status

        eventually(ready, f"GET /ready answers {status}", deadline)

    def _told_port(self):
        """Of the log: a service with a private sidecar holds the socket that that one listens on, too, and that one may log."""
        told = self.logged("serving", "model")
        return told[0]["port"] if told else None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def log_text(self):
        return pathlib.Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def logged(self, event, *members):
        """The lines of the log with this event and these members."""
        lines = [json.loads(line) for line in self.log_text().split("\n")[:-1] if line.startswith("{")]
        return [line for line in lines if line["event"] == event and all(name in line for name in members)]

    def request(self, method, path, **kwargs):
        if not hasattr(self._local, "http"):
            self._local.http = requests.Session()
            self._local.http.trust_env = False
        kwargs.setdefault("timeout", 120 * PATIENCE)
        return self._local.http.request(method, self.url + path, **kwargs)

    def body(self, query, context, model="root", custom_tools=None, custom_sub_tools=None, recursive_models=("sub",), **members):
        """The JSON of a request for a run."""
        if isinstance(context, str) and len(context) > 20 << 20:
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            told = self.request("POST", "/contexts", data=context.encode(), headers=headers).json()
            assert told["length"] == len(context), told
            members["context_id"] = told["context_id"]
        elif context is not None:
            members["context"] = context
        for name, tools in (("custom_tools", custom_tools), ("custom_sub_tools", custom_sub_tools)):
            if tools is not None:
                members[name] = {key: self.tool(value) for key, value in tools.items()}
        return {"query": query, "model": model, "recursive_models": list(recursive_models), **members}

    def written(self):
        """Files are written beside the runs."""
        eventually(lambda: self.metric("rlm_trajectory_waiting_bytes") == 0, "the trajectories are written")

    def file_of(self, run):
        """The lines of a run's trajectory file; none when it has ended before it could begin."""
        self.written()
        return next((lines for lines in self.trajectories() if lines and lines[0]["run_id"] == run), [])

    @staticmethod
    def tool(value):
        return {"code": value.source, "description": value.description} if isinstance(value, Function) else value

    def start(self, query="What is it?", context="nothing", **members):
        answer = self.request("POST", "/runs", json=self.body(query, context, **members))
        assert answer.status_code == 202, answer.text
        return ServiceRun(self, answer.json()["run_id"])

    def refuses(self, **members):
        """The answer to a run that cannot be, as text."""
        answer = self.request("POST", "/runs", json=self.body("q", "c", **members))
        assert answer.status_code in (400, 422), answer.text
        return answer.json()["error"]

    @contextlib.contextmanager
    def conversation(self, **members):
        ident = self.request("POST", "/conversations").json()["conversation_id"]
        try:
            yield lambda query, context: self.run(query, context, conversation_id=ident, **members)
        finally:
            assert self.request("DELETE", f"/conversations/{ident}").status_code == 200

    def check_after(self):
        self.written()
        super().check_after()
        assert KEY not in self.log_text(), "the key is in the log"
        assert self.process.poll() is None, f"the service has died:\n{self.log_text()[-4000:]}"

    def rss(self):
        return resident_bytes(self.process.pid)

    @staticmethod
    def subcalls(outcome):
        """What was told of sub-queries, in the order of their ends."""
        began = {event["call"]: event for event in outcome.events if event["type"] == "subcall_start"}
        ended = [event for event in outcome.events if event["type"] == "subcall_complete"]
        return [
            {name: began[event["call"]][name] for name in ("depth", "model")}
            | {"preview": began[event["call"]]["prompt_preview"], "duration": event["duration"], "error": event["error"]}
            for event in ended
        ]

    def metric(self, name):
        found = [line for line in self.request("GET", "/metrics").text.splitlines() if re.match(rf"{name}[ {{]", line)]
        assert found, f"no metric {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def close(self):
        if self.process.poll() is not None:
            return self.process.returncode
        if hasattr(self._local, "http"):
            self._local.http.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the service does not end:\n{self.log_text()[-4000:]}") from None


@contextlib.contextmanager
def own_service(models, tmp_path, **settings):
    """A service with a sidecar of its own; it must end well."""
    service = Service(models, None, tmp_path, **settings)
    try:
        yield service
    finally:
        status = service.close()
    assert status == 0


class ServiceRun:
    def __init__(self, service, ident):
        self.service, self.id = service, ident
        self.events = []
        self._reading = Background(self._read)

    def _read(self):
        with requests.Session() as http:
            http.trust_env = False
            url = f"{self.service.url}/runs/{self.id}/events"
            with http.get(url, stream=True, timeout=120 * PATIENCE) as answer:
                assert answer.status_code == 200, answer.text
                rest = []  # iter_lines() takes long over long lines
                for piece in answer.iter_content(None):
                    *lines, end = piece.split(b"\n")
                    for line in lines:
                        rest.append(line)
                        whole, rest = b"".join(rest), []
                        if whole.startswith(b"data:"):
                            self.events.append(json.loads(whole[5:]))
                    rest.append(end)

    def seen(self, kind):
        return [event for event in list(self.events) if event["type"] == kind]

    def _compare(self, lines):
        """What the service tells of a trajectory is what is in the file; but events have less room for records of calls."""
        told = self.service.request("GET", f"/runs/{self.id}/trajectory").content.split(b"\n")[:-1]
        told = [json.loads(line) for line in told]
        assert len(told) == len(lines)
        for one, other in zip(told, lines):
            long = len(json.dumps(other.get("code_blocks"))) > 3 << 20
            one, other = ({name: value for name, value in line.items() if not (long and name == "code_blocks")} for line in (one, other))
            assert timeless(one) == timeless(other)

    def done(self):
        return self._reading.done()

    def cancel(self):
        answer = self.service.request("POST", f"/runs/{self.id}/cancel")
        assert answer.status_code == 200, answer.text

    def result(self, deadline=60):
        self._reading.result(deadline)
        told = self.service.request("GET", f"/runs/{self.id}").json()
        assert told["status"] in ("succeeded", "failed", "cancelled"), told
        assert (told["status"] == "succeeded") == (told["error"] is None), told
        lines = self.service.file_of(self.id)
        self._compare(lines)
        last = [event for event in self.events if event["node"] == 0][-1]
        assert last["type"] == "result" and last["answer"] == told["answer"], last
        assert last["partial_answer"] == told["partial_answer"] and (told["error"] or told["partial_answer"] is None), last
        assert KEY not in json.dumps(self.events) + json.dumps(lines), "the key is in the events"
        error = last["error"] or {}
        return Outcome(
            told["answer"], error.get("code"), error.get("detail", ""), told["partial_answer"] or "", told["usage"], lines, self.events,
            told["iterations"],
        )  # fmt: skip


# --- the library


class Library(Driver):
    """`rlm.RLM` in this process."""

    kind = "library"

    def __init__(self, models, sidecar, folder, anthropic=False):
        super().__init__(models, sidecar, folder, anthropic)
        import rlm

        self.rlm = rlm

    def make(self, told, model="root", recursive_models=("sub",), execution_timeout=30.0, **members):
        """The object; what its callbacks are told goes to `told`."""
        for name in ("custom_tools", "custom_sub_tools"):
            if members.get(name) is not None:
                members[name] = {key: self.tool(value) for key, value in members[name].items()}
        return self.rlm.RLM(
            backend=self.api,
            backend_kwargs={"model_name": model, "base_url": self.base_url, "api_key": KEY},
            recursive_models=list(recursive_models),
            environment_kwargs={"url": self.sidecar.url, "execution_timeout": execution_timeout},
            logger=self.rlm.RLMLogger(log_dir=self.folder),
            on_subcall_start=lambda *args: told.append(("start", *args)),
            on_subcall_complete=lambda *args: told.append(("complete", *args)),
            **{LIBRARY_NAMES.get(name, name): value for name, value in members.items()},
        )

    @staticmethod
    def tool(value):
        return {"tool": value.callable(), "description": value.description} if isinstance(value, Function) else value

    def start(self, query="What is it?", context="nothing", **members):
        told = []
        return LibraryRun(self.make(told, **members), query, context, told)

    def refuses(self, **members):
        try:
            self.make([], **members).close()
        except (ValueError, TypeError) as error:
            return str(error)
        raise AssertionError("it was taken")

    @contextlib.contextmanager
    def conversation(self, **members):
        told = []
        with self.make(told, persistent=True, **members) as made:
            yield lambda query, context: LibraryRun(made, query, context, told, close=False).result()

    @staticmethod
    def subcalls(outcome):
        """What was told of sub-queries, in the order of their ends. One at a time: callbacks have no number."""
        began = [args for kind, *args in outcome.events if kind == "start"]
        ended = [args for kind, *args in outcome.events if kind == "complete"]
        return [
            {"depth": end[0], "model": end[1], "preview": start[2], "duration": end[2], "error": end[3]} for start, end in zip(began, ended)
        ]

    def rss(self):
        """It runs in this process, beside the tests."""
        return resident_bytes(os.getpid())


class LibraryRun(Background):
    def __init__(self, made, query, context, told, close=True):
        self.made, self.told = made, told
        super().__init__(lambda: self._complete(query, context, close))

    def _complete(self, query, context, close):
        before = self.made.cost_summary()
        try:
            done = self.made.completion(context, root_prompt=query)
        except Exception as error:
            code = getattr(error, "code", None)
            if code is None:
                raise
            outcome = Outcome(None, code, str(error), error.partial_answer or "", self.made.cost_summary())
        else:
            outcome = Outcome(done.response, usage=done.usage_summary.to_dict())
            if not before["model_usage_summaries"]:
                assert self.made.cost_summary() == outcome.usage
        finally:
            if close:
                self.made.close()
        path = pathlib.Path(self.made.logger.log_file_path)
        if not path.exists():  # it has failed before it could begin
            return outcome
        outcome.trajectory = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        outcome.events, outcome.iterations = self.told, len(outcome.turns)
        return outcome

    def cancel(self):
        """Again and again: the run may not have begun yet."""

        def ended():
            self.made.cancel()
            return self.done()

        eventually(ended, "the run has ended", 60)


DRIVERS = {"service": Service, "library": Library}
