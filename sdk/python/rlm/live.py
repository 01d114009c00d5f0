# SPDX-License-Identifier: Apache-2.0
"""A run as one reads it while it happens."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, Optional, TextIO

_STYLES = {"head": "1;36", "code": "33", "error": "31", "answer": "1;32", "quiet": "2"}


class LiveView:
    """Writes events of a run as text, in colours on a terminal. What children do is indented."""

    def __init__(self, file: Optional[TextIO] = None) -> None:
        self._file = file or sys.stderr
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
        self._colours = self._file.isatty() and not plain
        self._depths: Dict[int, int] = {}
        self._limits: Dict[int, int] = {}
        self._open: Optional[int] = None  #: the node whose line has no end yet

    def __call__(self, event: Dict[str, Any]) -> None:
        show = getattr(self, f"_{event['type']}", None)
        if show is not None:
            show(event)
            self._file.flush()

    def _metadata(self, event: Dict[str, Any]) -> None:
        node = event["node"]
        self._depths[node], self._limits[node] = event["depth"], event["max_iterations"]
        context = f"{event['context_type']} of {event['context_length']:,} characters" if event["context_type"] else "no context"
        self._line(node, "head", f"RLM {node}: {event['root_model']}, {context}")
        if event["query"]:
            self._line(node, "quiet", f"query: {_cut(event['query'], 500)}")

    def _turn(self, event: Dict[str, Any]) -> None:
        self._line(event["node"], "head", f"turn {event['iteration']}/{self._limits.get(event['node'], 0)}")

    def _delta(self, event: Dict[str, Any]) -> None:
        self._words(event["node"], "quiet", event["text"])

    def _output(self, event: Dict[str, Any]) -> None:
        self._words(event["node"], "error" if event["stream"] == "stderr" else "", event["text"])

    def _code(self, event: Dict[str, Any]) -> None:
        self._line(event["node"], "code", f"block {event['block'] + 1} runs")

    def _subcall_start(self, event: Dict[str, Any]) -> None:
        what = f"{event['kind']}_query {event['call']} to {event['model']} ({event['prompt_length']:,} characters)"
        self._line(event["node"], "quiet", f"> {what}: {_one_line(event['prompt_preview'])}")

    def _subcall_complete(self, event: Dict[str, Any]) -> None:
        told = f"failed: {event['error']}" if event["error"] else _one_line(event["response_preview"])
        self._line(event["node"], "error" if event["error"] else "quiet", f"< {event['call']}, {event['duration']:.1f} s: {told}")

    def _compaction(self, event: Dict[str, Any]) -> None:
        self._line(event["node"], "quiet", f"compaction: {event['tokens_before']:,} to {event['tokens_after']:,} tokens")

    def _result(self, event: Dict[str, Any]) -> None:
        if event["error"]:
            self._line(event["node"], "error", f"failed: {event['error']['detail']}")
        else:
            self._line(event["node"], "answer", f"answer: {_cut(event['answer'], 2000)}")
        used = event["usage_summary"]["model_usage_summaries"].values()
        tokens = sum(usage["total_input_tokens"] + usage["total_output_tokens"] for usage in used)
        cost = event["usage_summary"].get("total_cost")
        price = "" if cost is None else f", ${cost:.4f}"
        self._line(event["node"], "quiet", f"{event['execution_time']:.1f} s, {tokens:,} tokens{price}")

    def _line(self, node: int, style: str, text: str) -> None:
        if self._open is not None:
            self._file.write("\n")
            self._open = None
        indent = self._indent(node)
        for line in text.splitlines() or [""]:
            self._file.write(f"{indent}{self._style(style, line)}\n")

    def _words(self, node: int, style: str, text: str) -> None:
        """Words that come in pieces."""
        if self._open not in (None, node):
            self._file.write("\n")
            self._open = None
        indent = self._indent(node) + "  "
        for piece in text.splitlines(keepends=True):
            if self._open is None:
                self._file.write(indent)
            line = piece.rstrip("\r\n")
            self._file.write(self._style(style, line))
            self._open = node
            if line != piece:
                self._file.write("\n")
                self._open = None

    def _indent(self, node: int) -> str:
        return "    " * self._depths.get(node, 0)

    def _style(self, style: str, text: str) -> str:
        # What a model or its code says must not move the cursor, or worse.
        plain = "".join(char if char.isprintable() or char == "\t" else "?" for char in text)
        return f"\x1b[{_STYLES[style]}m{plain}\x1b[0m" if self._colours and style and plain else plain


def _one_line(text: str) -> str:
    return " ".join(text.split())[:80]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text):,} characters)"
