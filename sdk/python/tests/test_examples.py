# SPDX-License-Identifier: Apache-2.0
"""The examples as they are, with the real executor; small modules stand in for CrewAI, FastAPI and uvicorn."""

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

from executor import KEY, PATIENCE, ROOT, free_port, running_executor

EXAMPLES = ROOT / "examples"
STANDINS = pathlib.Path(__file__).parent / "standins"

CHAT = """
weather = tools['weather'].run(location='NYC')
saved = tools['database'].run(table='weather', row=weather)
result = f"{weather['temperature']} F, row {saved['id']} of {saved['table']}"
"""


@pytest.fixture(scope="module")
def world():
    """(an executor, the port on which it looks for the application's tools)"""
    port = free_port()
    with running_executor(f"localhost:{port}") as executor:
        yield executor, port


def environment(world, **more):
    executor, port = world
    path = os.pathsep.join([str(STANDINS), str(ROOT / "sdk/python")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODEMODE_")}
    return {
        **kept,
        "PYTHONPATH": path,
        "CODEMODE_API_KEY": KEY,
        "CODEMODE_EXECUTOR_URL": executor.url,
        "TOOL_SERVICE_PORT": str(port),
        "STAND_IN_TOOL_PORT": str(port),
        **more,
    }


@contextlib.contextmanager
def application(folder, module, env):
    """Serves an application; a function that asks it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"{module}:app"],
        cwd=EXAMPLES / folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = process.stdout.readline().strip()
        assert port.isdigit(), f"{folder} did not start: {process.poll()}"

        def ask(path, body=None, **arguments):
            url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(arguments)}"
            data = None if body is None else json.dumps(body).encode()
            with urllib.request.urlopen(url, data, timeout=60 * PATIENCE) as answer:
                return json.load(answer)

        yield ask
    finally:
        process.stdin.close()
        assert process.wait(60 * PATIENCE) == 0
        process.stdout.close()


def test_the_guides_application(world):
    text = (EXAMPLES / "guide_app/main.py").read_text()
    guide = text[text.index("from fastapi import") :]
    assert hashlib.sha256(guide.encode()).hexdigest().startswith("2b0ba14e4f74fd34"), "the guide's text was changed"
    with application("guide_app", "main", environment(world, STAND_IN_CODE=CHAT)) as ask:
        asked = {"message": "Get weather for NYC and save to database"}
        assert ask("/chat", asked) == {"result": "72 F, row 1 of weather"}
        assert ask("/chat", asked) == {"result": "72 F, row 2 of weather"}


def test_the_weather_application(world):
    code = "result = (await tools['weather'].run(location='Oslo'))['humidity']"
    with application("weather_app", "app", environment(world, STAND_IN_CODE=code)) as ask:
        assert ask("/health") == {"executor": True, "tools": True}
        assert ask("/chat", {"message": "Is it humid in Oslo?"}) == {"result": "71"}
        rows = [{"location": "Oslo", "temperature": 9}]
        insert = f"tools['database'].run(action='insert', rows={rows})"
        assert ask("/run", {"message": insert})["result"] == "{'inserted': 1}"
        select = "result = [context['user'], tools['database'].run(action='select')['value']]"
        assert ask("/run", {"message": select, "user": "bob"})["result"] == "['bob', []]"
        assert "9" in ask("/run", {"message": select})["result"]
        assert "one of" in ask("/run", {"message": "tools['database'].run(action='drop')"})["error"]


def test_the_demo(world):
    ended = subprocess.run(
        [sys.executable, "demo.py"],
        cwd=EXAMPLES / "weather_app",
        env=environment(world),
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )
    assert ended.returncode == 0, ended.stderr
    readme = (EXAMPLES / "weather_app/README.md").read_text()
    said = ended.stdout.splitlines()
    assert len(said) == 3 and all(f"    {line}\n" in readme for line in said), ended.stdout
    assert ended.stderr == ""
