# SPDX-License-Identifier: Apache-2.0
"""The manual pages: roff without a complaint, and nothing left out."""

import re
import subprocess

import pytest

from support import BUILD, CODEMODE, PATIENCE, ROOT

PAGES = ["codemode.1", "codemode-serve.1", "codemode.yaml.5", "rlm.1", "rlm-serve.1"]


def shown(page):
    """As a reader sees it, on lines as long as they are; a complaint of groff fails."""
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-rLL=1000n", "-P-cbou", str(BUILD / page)], capture_output=True, text=True, timeout=30 * PATIENCE)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.replace("‐", "-").replace("−", "-")


@pytest.fixture(scope="module")
def pages():
    return {page: shown(page) for page in PAGES}


@pytest.mark.parametrize("program, table, most", [("codemode", "verbs", 20), ("rlm", "rlm_verbs", 4)])
def test_every_verb_and_flag_is_there(pages, program, table, most):
    listed = subprocess.run([str(BUILD / program), "--help"], capture_output=True, text=True, timeout=30).stdout
    verbs = re.findall(r"^  (\S+(?: \S+)?) {2,}", listed, flags=re.M)
    assert len(verbs) > most
    for verb in verbs:
        assert re.search(rf"^ +{re.escape(verb)}( |$)", pages[f"{program}.1"], flags=re.M), verb
    for flag in re.findall(r'^CM_FLAG\("[^"]+", "[^"]*", "(--[^"]+)"', (ROOT / f"tables/{table}.def").read_text(), flags=re.M):
        assert flag in pages[f"{program}.1"]


@pytest.mark.parametrize("page, table", [("codemode-serve.1", "config"), ("rlm-serve.1", "rlm_config")])
def test_every_setting_is_there(pages, page, table):
    rows = re.findall(r'^CM_CONFIG\((\w+), \w+, "(\w+)", "(--[^"]+)"', (ROOT / f"tables/{table}.def").read_text(), flags=re.M)
    assert len(rows) > 50
    for field, variable, flag in rows:
        assert all(word in pages[page] for word in (field, variable, flag)), field


def test_every_key_is_there(pages):
    for kind, path in re.findall(r'^CM_FILE_KEY\((\w+), "([^"]+)"', (ROOT / "tables/config_files.def").read_text(), flags=re.M):
        assert path in pages["rlm-serve.1" if kind == "RLM" else "codemode.yaml.5"]
    assert "${VAR:-text}" in pages["codemode.yaml.5"]
