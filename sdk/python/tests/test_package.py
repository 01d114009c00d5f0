# SPDX-License-Identifier: Apache-2.0
"""What is installed works without the repository: the files that the library shares with the service come along."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]

LOOK = """
import pathlib, rlm
from rlm import common
assert pathlib.Path(rlm.__file__).parent == pathlib.Path.cwd() / "rlm", rlm.__file__
texts = [common.session_source(), common.prompt("system"), common.text("no_output"), common.price("gpt-5", 1, 1), rlm.RLM]
print(all(texts))
"""


def run(folder, *arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_build_has_all_files(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests")
    shutil.copytree(ROOT / "sdk/python", tmp_path / "sdk/python", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "rlm", tmp_path / "rlm")
    run(tmp_path / "sdk/python", "-c", "import setuptools; setuptools.setup()", "build", "--build-lib", str(tmp_path / "built"))
    shared = tmp_path / "built/rlm/shared"
    made = {str(path.relative_to(shared)) for path in shared.rglob("*") if path.is_file()}
    prompts = {f"prompts/v1/{path.name}" for path in (ROOT / "rlm/prompts/v1").iterdir()}
    assert made == {"session.py", "models.json", *prompts}
    assert run(tmp_path / "built", "-c", LOOK) == "True\n"
