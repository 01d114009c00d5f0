# SPDX-License-Identifier: Apache-2.0
"""Tools for agent frameworks; each framework is imported only where it is there."""
