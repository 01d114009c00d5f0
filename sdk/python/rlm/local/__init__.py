# SPDX-License-Identifier: Apache-2.0
"""The loop in this process."""

from .rlm_repl import RLM_REPL

__all__ = ["RLM_REPL"]
