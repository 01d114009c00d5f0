# SPDX-License-Identifier: Apache-2.0
"""The parts of the library below `codemode.Codemode`."""
