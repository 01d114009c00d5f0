# SPDX-License-Identifier: Apache-2.0
"""The model service of the end-to-end tests."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "e2e"))

from model_server import *  # noqa: E402, F401, F403
