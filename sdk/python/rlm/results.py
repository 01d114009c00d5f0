# SPDX-License-Identifier: Apache-2.0
"""What a completion returns, and what it has used."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Union


@dataclass
class ModelUsageSummary:
    """What one model was asked. `total_cost` is in US dollars, None where no price is known."""

    total_calls: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    total_cost: Optional[float] = None

    def to_dict(self) -> Dict[str, Any]:
        found = dataclasses.asdict(self)
        if self.total_cost is None:
            del found["total_cost"]
        return found


@dataclass
class UsageSummary:
    """What all models were asked. Where a service says nothing of tokens, four characters count as one."""

    model_usage_summaries: Dict[str, ModelUsageSummary] = field(default_factory=dict)

    @property
    def total_cost(self) -> Optional[float]:
        """US dollars of all calls with a price; None where none has one."""
        costs = [usage.total_cost for usage in self.model_usage_summaries.values() if usage.total_cost is not None]
        return sum(costs) if costs else None

    @property
    def total_calls(self) -> int:
        return sum(usage.total_calls for usage in self.model_usage_summaries.values())

    @property
    def total_input_tokens(self) -> int:
        return sum(usage.total_input_tokens for usage in self.model_usage_summaries.values())

    @property
    def total_output_tokens(self) -> int:
        return sum(usage.total_output_tokens for usage in self.model_usage_summaries.values())

    def to_dict(self) -> Dict[str, Any]:
        """``{"model_usage_summaries": {model: {...}}, "total_cost"?}``"""
        found: Dict[str, Any] = {
            "model_usage_summaries": {model: usage.to_dict() for model, usage in self.model_usage_summaries.items()}
        }
        if self.total_cost is not None:
            found["total_cost"] = self.total_cost
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "UsageSummary":
        """The reverse of `to_dict`; members that are not known are left out."""
        names = {entry.name for entry in dataclasses.fields(ModelUsageSummary)}
        models = data.get("model_usage_summaries") or {}
        return cls(
            {
                str(model): ModelUsageSummary(**{name: value for name, value in usage.items() if name in names})
                for model, usage in models.items()
            }
        )


class UsageCounter:
    """Adds up calls from any number of threads."""

    def __init__(self, *parents: "UsageCounter") -> None:
        self._lock = threading.Lock()
        self._models: Dict[str, ModelUsageSummary] = {}
        self._parents = parents  #: they count the same calls

    def add(self, model: str, input_tokens: int, output_tokens: int, cost: Optional[float]) -> None:
        with self._lock:
            usage = self._models.setdefault(model, ModelUsageSummary())
            usage.total_calls += 1
            usage.total_input_tokens += input_tokens
            usage.total_output_tokens += output_tokens
            if cost is not None:
                usage.total_cost = (usage.total_cost or 0.0) + cost
        for parent in self._parents:
            parent.add(model, input_tokens, output_tokens, cost)

    def merge(self, usage: UsageSummary) -> None:
        """Adds what another one has counted."""
        with self._lock:
            for model, more in usage.model_usage_summaries.items():
                mine = self._models.setdefault(model, ModelUsageSummary())
                mine.total_calls += more.total_calls
                mine.total_input_tokens += more.total_input_tokens
                mine.total_output_tokens += more.total_output_tokens
                if more.total_cost is not None:
                    mine.total_cost = (mine.total_cost or 0.0) + more.total_cost

    def summary(self) -> UsageSummary:
        with self._lock:
            return UsageSummary({model: dataclasses.replace(usage) for model, usage in self._models.items()})


@dataclass
class RLMChatCompletion:
    """The end of a run.

    ``root_model``      that was asked first
    ``prompt``          the context, as it was given
    ``response``        the answer
    ``usage_summary``   of the run with all that it has started
    ``execution_time``  seconds
    ``metadata``        ``{"run_metadata", "iterations"}`` where there is a logger, else None
    ``error``           None; the text of a sub-query's failure in a trajectory

    ``str()`` gives the answer.
    """

    root_model: str
    prompt: Union[str, list, dict, Any]  # type: ignore[type-arg]
    response: str
    usage_summary: UsageSummary
    execution_time: float
    metadata: Optional[Dict[str, Any]] = None
    error: Optional[str] = None

    def __str__(self) -> str:
        return self.response

    def to_dict(self) -> Dict[str, Any]:
        found: Dict[str, Any] = {
            "root_model": self.root_model,
            "prompt": self.prompt,
            "response": self.response,
            "usage_summary": self.usage_summary.to_dict(),
            "execution_time": self.execution_time,
            "metadata": self.metadata,
        }
        if self.error is not None:
            found["error"] = self.error
        return found
