# SPDX-License-Identifier: Apache-2.0
"""A client of executions as streams (docs/streaming.md): events one by one, and answers to calls."""

import http.client
import json

from support import PATIENCE


def events_of(lines):
    """(name, data) of each server-sent event; `lines` gives them with their line breaks, as bytes."""
    name, data = None, []
    for line in lines:
        line = line.rstrip(b"\r\n")
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            data.append(line[6:])
        elif not line and name:
            yield name, json.loads(b"\n".join(data))
            name, data = None, []


class Held:
    """An execution that lasts until it is let go: it waits for an answer of ours, on a connection that was there before."""

    def __init__(self, session, code="'finished'", **body):
        self.session, self.stream = session, Stream(session, f"tools['hold'].run()\n{code}", ["hold"], **body)
        self.call = self.stream.until("call")["call"]
        self.line = http.client.HTTPConnection("127.0.0.1", session.sidecar.port, timeout=60 * PATIENCE)
        self.line.connect()

    def let_go(self):
        path = f"{self.session.path}/executions/{self.stream.execution}/calls/{self.call}"
        self.line.request("POST", path, json.dumps({"result": None}), {"Content-Type": "application/json"})
        answer = self.line.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"status": "ok"})
        self.line.close()

    def result(self):
        """Lets it go, and what becomes of it."""
        self.let_go()
        try:
            return self.stream.result()
        finally:
            self.stream.close()


class Stream:
    """An execution whose events are read one at a time. Each one that was read is kept in `seen`."""

    def __init__(self, session, code, tools=None, headers=(), **body):
        self.session, self.seen = session, []
        if tools is not None:
            body["caller_tools"] = tools
        self.http = http.client.HTTPConnection("127.0.0.1", session.sidecar.port, timeout=60 * PATIENCE)
        heads = {"Accept": "text/event-stream", "Content-Type": "application/json", **dict(headers)}
        self.http.request("POST", f"{session.path}/execute", json.dumps({"code": code, **body}), heads)
        self.answer = self.http.getresponse()
        self._events = events_of(iter(self.answer.readline, b""))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return self

    def __next__(self):
        self.seen.append(next(self._events))
        return self.seen[-1]

    def close(self):
        self.answer.close()
        self.http.close()

    def until(self, name):
        """The data of the next event of that name; what comes before it is in `seen`."""
        for event, data in self:
            if event == name:
                return data
        raise AssertionError(f"the stream has ended without {name}: {self.seen}")

    def result(self):
        """The last event's data, of an execution that has run."""
        for _ in self:
            pass
        name, data = self.seen[-1]
        assert name == "result", self.seen[-1]
        return data

    @property
    def execution(self):
        name, data = self.seen[0]
        assert name == "start"
        return data["execution_id"]

    def text(self, stream="stdout"):
        """What has been printed so far."""
        return "".join(data["text"] for name, data in self.seen if name == "output" and data["stream"] == stream)

    def reply(self, call, session=None, execution=None, **body):
        """The HTTP answer to `result=` or `error=` for a call."""
        session, execution = session or self.session, execution or self.execution
        return session.sidecar.request("POST", f"{session.path}/executions/{execution}/calls/{call}", json=body)

    def serve(self, **tools):
        """Answers every call by the function of its name, until the result."""
        for name, data in self:
            if name == "call":
                try:
                    outcome = {"result": tools[data["name"]](**data["arguments"])}
                except Exception as error:
                    outcome = {"error": str(error)}
                assert self.reply(data["call"], **outcome).json() == {"status": "ok"}
        name, data = self.seen[-1]
        assert name == "result", self.seen[-1]
        return data
