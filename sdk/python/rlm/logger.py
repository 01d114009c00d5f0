# SPDX-License-Identifier: Apache-2.0
"""Trajectories of runs (docs/rlm-events.md), in memory and as files of JSON lines."""

from __future__ import annotations

import datetime
import json
import logging
import os
import pathlib
import threading
import uuid
from typing import Any, Dict, List, Mapping, Optional, Union

_log = logging.getLogger(__name__)

#: Characters of one text in a file; a longer one is cut in its middle.
TEXT_MAX = 200_000


class RLMLogger:
    """Keeps what runs have done: ``completion.metadata`` then has ``{"run_metadata", "iterations"}``.

    With `log_dir`, each run is also a file ``<file_name>_<date>_<time>_<8 hex digits>.jsonl`` there: the run's metadata in the first line, an
    iteration in each further one, for its owner only. The folder is made when it is missing. One logger may serve several runs, also at once.
    """

    def __init__(self, log_dir: Union[str, "os.PathLike[str]", None] = None, file_name: str = "rlm") -> None:
        self.log_dir = None if log_dir is None else pathlib.Path(log_dir)
        self.file_name = file_name
        if self.log_dir is not None:
            self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._newest: Optional[RunLog] = None

    @property
    def log_file_path(self) -> Optional[str]:
        """The newest run's file; None where there is none."""
        with self._lock:
            return None if self._newest is None or self._newest.path is None else str(self._newest.path)

    @property
    def iteration_count(self) -> int:
        """Iterations of the newest run."""
        with self._lock:
            return 0 if self._newest is None else len(self._newest.iterations)

    def get_trajectory(self) -> Optional[Dict[str, Any]]:
        """``{"run_metadata", "iterations"}`` of the newest run."""
        with self._lock:
            return None if self._newest is None else self._newest.trajectory()

    def begin(self) -> "RunLog":
        """The log of a run that begins now."""
        path = None
        if self.log_dir is not None:
            now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            path = self.log_dir / f"{self.file_name}_{now}_{uuid.uuid4().hex[:8]}.jsonl"
        log = RunLog(path)
        with self._lock:
            self._newest = log
        return log


class RunLog:
    """One run's trajectory."""

    def __init__(self, path: Optional[pathlib.Path]) -> None:
        self.path = path
        self.run_metadata: Dict[str, Any] = {}
        self.iterations: List[Dict[str, Any]] = []

    def metadata(self, entry: Mapping[str, Any]) -> None:
        """The run's first line. What looks like a key of an API is left out."""
        self.run_metadata = _without_keys(dict(entry))
        self._write({"type": "metadata", **self.run_metadata})

    def iteration(self, entry: Mapping[str, Any]) -> None:
        found = {"type": "iteration", **entry}
        self.iterations.append(found)
        self._write(found)

    def trajectory(self) -> Dict[str, Any]:
        return {"run_metadata": dict(self.run_metadata), "iterations": list(self.iterations)}

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        line = json.dumps(_shortened(entry), ensure_ascii=False, default=str)
        try:
            with open(self.path, "a", encoding="utf-8", errors="replace", opener=_private) as file:
                file.write(line + "\n")
        except OSError as error:  # a full disk must not end a run
            _log.warning("the trajectory %s misses a line: %s", self.path, error)


def _private(path: str, flags: int) -> int:
    """For its owner only: it holds what was in the context."""
    return os.open(path, flags, 0o600)


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_keys(member)
            for name, member in value.items()
            if not ("api" in str(name).lower() and "key" in str(name).lower())
        }
    return value


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_MAX:
        half = TEXT_MAX // 2
        return f"{value[:half]}\n... {len(value) - TEXT_MAX} characters dropped ...\n{value[-half:]}"
    if isinstance(value, Mapping):
        return {name: _shortened(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(member) for member in value]
    return value
