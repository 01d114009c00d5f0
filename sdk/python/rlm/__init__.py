# SPDX-License-Identifier: Apache-2.0
"""Client library of the Codemode sidecar.

``rlm.remote`` runs Python code in sessions of a sidecar. It needs nothing but the standard library.
"""
