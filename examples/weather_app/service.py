# SPDX-License-Identifier: Apache-2.0
"""What demo.py and app.py share: the library with the application's tools in it."""

import os
import pathlib

from codemode import Codemode
from codemode.grpc import start_tool_service
from tools import Analyst, DatabaseTool, WeatherTool


def make_codemode():
    """A Codemode with the tools registered, and the service that the executor calls them through."""
    codemode = Codemode.from_config(pathlib.Path(__file__).with_name("codemode.yaml"))
    codemode.registry.register_tool("weather", WeatherTool())
    codemode.registry.register_tool("database", DatabaseTool())
    codemode.registry.register_agent("analyst", Analyst())
    service = start_tool_service(codemode.registry, port=int(os.environ.get("TOOL_SERVICE_PORT", "50051")))
    return codemode, service
