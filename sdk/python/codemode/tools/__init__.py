# SPDX-License-Identifier: Apache-2.0
"""What tools are made of."""

from .base import ContextAwareTool

__all__ = ["ContextAwareTool"]
