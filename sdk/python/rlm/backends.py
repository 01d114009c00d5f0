# SPDX-License-Identifier: Apache-2.0
"""From the names of backends to models at their places."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from .models import Model


class _Backend(NamedTuple):
    base_url: Optional[str]  #: None: it must be named
    keys: Tuple[str, ...]  #: variables that may hold the key, the first one that is set counts
    api: str = "openai"


_OPENAI = _Backend("https://api.openai.com/v1", ("OPENAI_API_KEY", "LLM_API_KEY"))
_BACKENDS: Dict[str, _Backend] = {
    "openai": _OPENAI,
    "anthropic": _Backend("https://api.anthropic.com", ("ANTHROPIC_API_KEY",), "anthropic"),
    "openrouter": _Backend("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "vercel": _Backend("https://ai-gateway.vercel.sh/v1", ("AI_GATEWAY_API_KEY",)),
    "gemini": _Backend("https://generativelanguage.googleapis.com/v1beta/openai", ("GEMINI_API_KEY",)),
    "portkey": _Backend("https://api.portkey.ai/v1", ("PORTKEY_API_KEY",)),
    "prime": _Backend("https://api.pinference.ai/api/v1", ("PRIME_API_KEY",)),
    "vllm": _Backend(None, ("LLM_API_KEY",)),
    "litellm": _Backend("https://api.openai.com/v1", ("OPENAI_API_KEY", "LLM_API_KEY")),
}

#: A base URL's host says whose key is meant, also with the backend "openai".
_HOSTS = {urlsplit(backend.base_url).hostname: backend for backend in _BACKENDS.values() if backend.base_url}

_KNOWN = frozenset(
    "model_name model base_url api_key timeout max_retries headers default_headers max_tokens sampling_args prices".split()
)


def make_model(
    backend: str, kwargs: Optional[Mapping[str, Any]] = None, sampling_args: Optional[Mapping[str, Any]] = None
) -> Model:
    """The model that a backend and its arguments mean.

    ``model_name`` (or ``model``; default LLM_MODEL, else gpt-5), ``base_url``, ``api_key``, ``timeout`` (seconds of one attempt), ``max_retries``
    (attempts after the first), ``headers``, ``max_tokens`` (of a reply), ``sampling_args`` (members of the request), ``prices`` (see `read_prices`).
    ValueError for a backend that is not known, TypeError for an argument that is none."""
    given = dict(kwargs or {})
    unknown = sorted(set(given) - _KNOWN)
    if unknown:
        raise TypeError(f"backend_kwargs has {', '.join(map(repr, unknown))}; known are {', '.join(sorted(_KNOWN))}")
    name = given.get("model_name") or given.get("model") or os.environ.get("LLM_MODEL") or "gpt-5"
    if backend == "litellm":
        backend, name = _litellm(str(name), given.get("base_url"))
    row = _row(backend)
    base_url = given.get("base_url") or (backend == "openai" and os.environ.get("LLM_BASE_URL")) or row.base_url
    if not base_url:
        raise ValueError(f"the backend {backend!r} needs a base_url in backend_kwargs")
    known_host = _HOSTS.get(urlsplit(str(base_url)).hostname)
    keys = known_host.keys if known_host and given.get("base_url") else row.keys
    key = given.get("api_key") or next((os.environ[key] for key in keys if os.environ.get(key)), None)
    headers = {str(header): str(value) for header, value in {**(given.get("default_headers") or {}), **(given.get("headers") or {})}.items()}
    if backend == "portkey" and key:
        headers["x-portkey-api-key"], key = str(key), None
    sampling = {**(given.get("sampling_args") or {}), **(sampling_args or {})}
    if given.get("max_tokens") is not None:
        sampling.setdefault("max_tokens", given["max_tokens"])
    retries, timeout = given.get("max_retries"), given.get("timeout")
    return Model(
        name=str(name),
        api=row.api,
        base_url=str(base_url).rstrip("/"),
        api_key=None if key is None else str(key),
        sampling=sampling,
        headers=headers,
        timeout=None if timeout is None else float(timeout),
        attempts=None if retries is None else int(retries) + 1,
    )


def read_prices(given: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """Windows and prices of models, ``{name: {"window", "input", "cached_input", "output"}}`` (US dollars for a million tokens), beside and over
    those of rlm/models.json: of the file that RLM_PRICES names, and `given`."""
    path, found = os.environ.get("RLM_PRICES"), {}
    if path:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    return {**found.get("models", found), **(given or {})}


def _row(backend: str) -> _Backend:
    if backend in ("azure_openai", "azure"):
        raise ValueError(
            "the backend 'azure_openai' is not supported; Azure's OpenAI-compatible endpoint (https://NAME.openai.azure.com/openai/v1) "
            "works with backend='openai' and its base_url"
        )
    if backend not in _BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; known are {', '.join(sorted(_BACKENDS))}")
    return _BACKENDS[backend]


def _litellm(name: str, base_url: Any) -> Tuple[str, str]:
    """"provider/model" names its provider; with a base URL it is an OpenAI-compatible one."""
    provider, slash, rest = name.partition("/")
    if slash and provider in ("openai", "hosted_vllm", "openai_like") or base_url:
        return "openai", rest if slash and provider in ("openai", "hosted_vllm", "openai_like") else name
    if slash and provider in _BACKENDS:
        return provider, rest
    return "openai", name
