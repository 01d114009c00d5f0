# SPDX-License-Identifier: Apache-2.0
"""The page of the RLM service in a browser: Chromium without a window, against the real service and a scripted model."""

import os
import re

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Chromedriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from model_server import KEY, ModelServer, Reply, answer, by_model, fail, repl, turns
from rlm_support import Service, root
from support import PATIENCE, eventually

WIDE, NARROW = (1280, 900), (390, 844)
HOSTILE = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1</script></pre></textarea>&amp;'\"`${1}"


class Page:
    """One tab. What is on the page is asked by CSS selectors."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        wanted = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        for argument in wanted + (["--no-sandbox"] if os.geteuid() == 0 else []):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Chromedriver("/usr/bin/chromedriver"), options=options)
        self.driver.set_script_timeout(30 * PATIENCE)

    def open(self, service, path="", size=WIDE, dark=False):
        self.driver.get("about:blank")
        self.size(*size)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.driver.get(f"{service.url}/ui{path}")

    def size(self, width, height):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def cdp(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def js(self, code, *arguments):
        return self.driver.execute_script(f"return {code}", *arguments)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector, text="", deadline=60):
        """The first element that is shown and has the text."""

        def found():
            shown = "(e) => e.checkVisibility() && e.textContent.includes(arguments[1])"
            return self.js(f"[...document.querySelectorAll(arguments[0])].find({shown})", selector, text)

        return eventually(found, f"{selector} with {text!r} is shown", deadline)

    def click(self, selector, text=""):
        self.js("arguments[0].click()", self.one(selector, text))

    def text(self, selector="body"):
        return self.js("[...document.querySelectorAll(arguments[0])].map((e) => e.textContent).join('\\n')", selector)

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def shot(self, name):
        """For the eye, where somebody asks for it."""
        if folder := os.environ.get("CODEMODE_SCREENSHOTS"):
            self.driver.save_screenshot(f"{folder}/{name}.png")

    def status(self, wanted, deadline=60):
        return self.one(".run-title .status", wanted, deadline)


@pytest.fixture(scope="module")
def browser():
    page = Page()
    try:
        yield page
    finally:
        page.driver.quit()


@pytest.fixture(scope="module")
def rlm_service(sidecar, tmp_path_factory):
    with ModelServer(None, key=KEY, strict=False) as models:
        service = Service(models, sidecar, tmp_path_factory.mktemp("trajectories"))
        try:
            yield service
        finally:
            service.close()


@pytest.fixture
def service(rlm_service):
    rlm_service.models.reset(None)
    yield rlm_service
    rlm_service.models.check()


@pytest.fixture
def page(browser):
    browser.driver.get("about:blank")
    browser.errors()
    yield browser
    assert browser.js("window.harmed") is None, "a text became a script"
    assert browser.errors() == []


def start(service, script, query="What is it?", context="some\ntext", **members):
    service.models.script = script
    told = service.request("POST", "/runs", json=service.body(query, context, **members))
    assert told.status_code == 202, told.text
    return told.json()["run_id"]


def sub_answers(request):
    return f"reply to {request.last[:20]}"


def deep(request):
    """The model of depth 1: one plain sub-query, then an end."""
    return turns(repl("print(llm_query('what is deeper?'))"), Reply("FINAL(from below)"))(request) if request.is_loop else "plain"


DEEP = [
    repl("print(len(context), 'characters')", before="I look at it first.\n\n"),
    repl("parts = llm_query_batched([f'part {i}' for i in range(3)])\nbelow = rlm_query('join ' + ' '.join(parts))\nprint(below)"),
    repl(answer("f'It is {below}.'")),
]


def run_deep(service, **members):
    script = by_model({"root": turns(*DEEP), "mid": deep, "sub": sub_answers})
    return start(service, script, recursive_models=["mid", "sub"], max_depth=2, **members)


def test_a_run_begins_in_the_form_and_is_followed_to_its_end(page, service):
    service.models.script = root(repl("print('seen', context)", gate="first"), repl(answer("'all ' + context"), gate="second"))
    page.open(service, "#/new")
    page.one("#query").send_keys("How much?")
    page.one("#context").send_keys("forty-two")
    page.one("#model").send_keys("root")
    page.click(".new button[type=submit]")
    page.status("running")
    page.one(".turn .tag.live", "the model writes")
    page.one("#runs a .dot.running")
    page.shot("live")
    service.models.open("first")
    page.one(".turn .stdout", "seen forty-two")
    page.one(".turn.live .turn-name", "Turn 2")
    service.models.open("second")
    page.one(".answer", "all forty-two")
    page.status("succeeded")
    page.one("#runs a[aria-current] .dot.succeeded")
    assert page.text(".turn .code").startswith("print('seen', context)")
    assert page.text(".run h1") == "How much?"


def test_a_file_is_the_context(page, service, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("a line\n" * 200000, encoding="utf-8")
    service.models.script = root(repl(answer("str(len(context))")))
    page.open(service, "#/new")
    page.one("#query").send_keys("How long?")
    page.one("#model").send_keys("root")
    page.all("#context-file")[0].send_keys(str(file))
    page.one(".new .field", "lines.txt")
    page.click(".new button[type=submit]")
    page.one(".answer", "1400000")


def test_the_form_says_what_is_refused(page, service):
    page.open(service, "#/new")
    page.one("#query").send_keys("q")
    page.one("#max_depth").send_keys("1000000")
    page.click(".new button[type=submit]")
    page.one(".new .notice.bad", "max_depth")
    assert [error for error in page.errors() if "422" not in error and "400" not in error] == []


def tree(page):
    return [
        (int(row.get_attribute("aria-level")), row.find_element(By.CSS_SELECTOR, ".label").text, row.text.replace("\n", " "))
        for row in page.all(".tree-row")
    ]


def test_the_tree_has_every_call(page, service):
    page.open(service, f"#/run/{run_deep(service)}")
    page.status("succeeded")
    page.one(".tree-row", "what is deeper?")
    page.one(".answer", "It is from below.")
    rows = tree(page)
    levels = [(level, label) for level, label, _ in rows]
    parts = [(3, f"part {i}") for i in range(3)]
    inside = [(4, "turn 1"), (5, "what is deeper?"), (4, "turn 2")]
    assert levels == [(1, "root"), (2, "turn 1"), (2, "turn 2"), *parts, (3, "run 1"), *inside, (2, "turn 3")]
    for level, label, text in rows:
        assert " ms" in text or " s" in text, (label, text)
        assert level == 1 or "turn" in label or "tok" in text, (label, text)
    page.shot("tree")
    page.open(service, page.js("location.hash"), dark=True)
    page.status("succeeded")
    page.click(".tree-row", "what is deeper?")
    page.one(".crumbs [aria-current]", "run 1")
    page.one(".call[open] .call-body", "reply to what is deeper?")
    page.shot("tree-dark")
    page.click(".crumbs button", "root")
    page.one(".turn-name", "Turn 3")


def test_the_tree_is_walked_by_keys(page, service):
    page.open(service, f"#/run/{run_deep(service)}")
    page.status("succeeded")
    page.one(".tree-row", "turn 3")

    def press(*keys):
        for key in keys:
            page.driver.switch_to.active_element.send_keys(key)
        return page.js("[document.activeElement.querySelector('.label')?.textContent, document.activeElement.getAttribute('aria-expanded')]")

    page.js("document.querySelector('.tree-row').focus()")
    assert press(Keys.ARROW_DOWN, Keys.ARROW_DOWN) == ["turn 2", "true"]
    assert press(Keys.ARROW_LEFT) == ["turn 2", "false"]
    assert press(Keys.ARROW_DOWN) == ["turn 3", None]
    assert press(Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT) == ["part 0", None]
    assert press(Keys.ARROW_LEFT) == ["turn 2", "true"]
    press(Keys.END, Keys.ENTER)
    page.one('.tree-row[aria-selected="true"]', "turn 3")
    assert press(Keys.HOME) == ["root", "true"]


def test_hostile_texts_stay_texts(page, service):
    """From the query, the context, the model's words and code, its names, its output, its errors, its sub-calls and its answer."""
    code = "print(context)\nhostile = context\nprint(llm_query(context))\nraise ValueError(context)"
    script = by_model({"root": turns(repl(code, before=HOSTILE + "\n\n"), repl(answer("context"))), HOSTILE: HOSTILE})
    page.open(service, f"#/run/{start(service, script, query=HOSTILE, context=HOSTILE, recursive_models=[HOSTILE])}")
    page.status("succeeded")
    for summary in (".call > summary", ".block-foot summary", ".prompt > summary"):
        page.click(summary)
    page.one(".locals", "hostile")
    for selector in (".run h1", "#runs .run-query", ".words", ".stdout", ".stderr", ".call-body", ".answer", ".tree", ".messages"):
        assert HOSTILE in page.text(selector), selector
    assert page.all("main img, main script, nav img, nav script") == []
    page.shot("hostile")


def test_a_run_is_cancelled(page, service):
    page.open(service, f"#/run/{start(service, root(repl('while True: pass')))}")
    page.one(".turn .tag.live", "running code")
    page.click("#cancel")
    page.status("cancelled")
    page.one(".failure h2", "Cancelled")
    assert page.all("#cancel") == []


def test_failures_say_why(page, service):
    page.open(service, f"#/run/{start(service, root(fail(401, 'no such key')))}")
    page.status("failed")
    page.one(".failure", "no such key")
    script = root(repl("print('working on it')", before="So far I know little.\n\n"), Reply("slow", delay=30))
    page.open(service, f"#/run/{start(service, script, max_timeout=4)}")
    page.status("failed")
    page.one(".failure h2", "Time is up")
    page.one(".failure", "timeout_exceeded")
    page.one(".failure", "So far I know little.")
    page.shot("failed")


def test_an_error_in_a_sub_call_is_seen(page, service):
    script = root(repl("print(llm_query('q'))"), repl(answer("'done'")), sub=fail(400, "not liked"))
    page.open(service, f"#/run/{start(service, script)}")
    page.status("succeeded")
    page.one(".tree-row.failed .error", "not liked")
    page.click(".call > summary", "q")
    page.one(".call-body .notice", "not liked")


def test_large_outputs_are_shown_piece_by_piece(page, service):
    script = root(repl("for i in range(3000): print(f'line {i} ' + 'x' * 40)"), repl(answer("'done'")))
    page.open(service, f"#/run/{start(service, script)}")
    page.status("succeeded")
    page.one(".turn .stdout", "line 300")
    assert len(page.text(".stdout")) < 25000
    page.click(".output .more button", "All")
    page.one(".turn .stdout", "line 2999" if "line 2999" in page.text(".stdout") else "line 390")
    assert page.all(".output .more button") == []


def test_of_many_sub_calls_some_are_shown(page, service):
    """The first ones and the failures; the others when they are asked for."""

    def reply(request):
        return fail(400, "not liked") if request.last == "q 150" else "r"

    script = root(repl("print(len(llm_query_batched([f'q {i}' for i in range(200)])))"), repl(answer("'done'")), sub=reply)
    page.open(service, f"#/run/{start(service, script)}")
    page.status("succeeded")
    page.one(".tree-row.failed", "q 150")
    page.one(".call", "q 150")
    eventually(lambda: len(page.all(".tree-row.llm")) < 20 and len(page.all(".call")) < 30, "most of them are folded")
    page.click(".tree-row.more")

    def opened():  # a row that is drawn anew in the moment of the click does not notice it
        page.click(".tree-row .label", "q 199")  # of the whole row, "q 19" in "9 ms" would say so, too
        return any("q 199" in call.text for call in page.all(".call[open]"))

    eventually(opened, "the call of that row is open", deadline=20, pause=1)
    page.click(".more-calls")
    eventually(lambda: len(page.all(".tree-row.llm")) == 200 and len(page.all(".call")) == 200, "all of them are shown")


def test_a_trajectory_is_read_from_disk(page, service, tmp_path):
    ident = run_deep(service)
    page.open(service, f"#/run/{ident}")
    page.status("succeeded")
    page.one(".tree-row", "turn 3")
    live = [row[:2] for row in tree(page)]
    file = tmp_path / "a run.jsonl"
    service.written()
    (kept,) = [path for path in service.folder.glob("*.jsonl") if ident in path.read_text(encoding="utf-8")]
    file.write_bytes(kept.read_bytes())
    page.all("#file")[0].send_keys(str(file))
    page.status("file")
    page.one(".answer", "It is from below.")
    assert [row[:2] for row in tree(page)] == live
    page.shot("file")
    bad = tmp_path / "other.jsonl"
    bad.write_text('{"type": "something else"}\nno JSON\n', encoding="utf-8")
    page.all("#file")[0].send_keys(str(bad))
    page.one(".notice.bad", "is no trajectory")


def test_a_lost_connection_is_taken_up_again(page, service):
    script = root(repl("print('before')", gate="one"), repl("print('meanwhile')", gate="two"), repl(answer("'after'"), gate="three"))
    page.open(service, f"#/run/{start(service, script)}")
    service.models.open("one")
    page.one(".stdout", "before")
    page.cdp("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.cdp("Network.emulateNetworkConditions", offline=True, **offline)
    service.models.open("two")
    page.one(".connection.bad")
    page.cdp("Network.emulateNetworkConditions", offline=False, **offline)
    page.one(".stdout", "meanwhile")
    service.models.open("three")
    page.one(".answer", "after")
    assert [element.text for element in page.all(".turn-name")] == ["Turn 1", "Turn 2", "Turn 3"]
    assert page.text(".stdout").count("before") == 1
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in page.errors())


def test_nothing_is_too_wide(page, service):
    ident = run_deep(service, query="a very_long_word_" * 30)
    for size in (WIDE, NARROW):
        for path in ("", "#/new", f"#/run/{ident}"):
            page.open(service, path, size, dark=size == NARROW)
            page.one(".runs-head" if not path else "#query" if path == "#/new" else ".turn-name")
            assert page.js("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, (size, path)
            page.shot(f"{size[0]}{path.replace('/', '-')[:6]}")


def test_nothing_comes_from_elsewhere(page, service):
    page.open(service, f"#/run/{run_deep(service)}")
    page.status("succeeded")
    origins = page.js("[...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name).origin))]")
    assert set(origins) <= {service.url, "null"}
    for path in ("/ui", "/ui/", "/ui/app.js", "/ui/style.css"):
        policy = service.request("GET", path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert service.request("GET", "/ui/..%2f..%2fetc%2fpasswd").status_code == 404


def test_colours_are_the_readers_choice(page, service):
    """There are two sets of colours. The system says which, until the reader does; that stays."""
    run, seen = run_deep(service), {}

    def colours():
        page.one(".tree-row")
        shown = "(e) => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color, getComputedStyle(e).borderColor]"
        return page.js(f"[...document.querySelectorAll('body, button, a, .status, .box, .kind, .text')].map({shown})")

    for system in ("light", "dark"):
        for choice in ("light", "dark", "as the system"):  # the last one stands for the next test, too
            page.open(service, f"#/run/{run}", dark=system == "dark")
            page.status("succeeded")
            eventually(lambda: page.click("#theme") or choice in page.js("document.querySelector('#theme').title"), choice)
            seen[system, choice] = colours()
            page.shot(f"colours-{system}-{choice.split()[-1]}")
            page.driver.refresh()
            page.status("succeeded")
            assert colours() == seen[system, choice]
    sums = {case: sum(map(int, re.findall(r"\d+", found[0][0]))) for case, found in seen.items()}
    assert sums["light", "as the system"] > 600 and sums["dark", "as the system"] < 200
    for system in ("light", "dark"):
        assert seen["light", system] == seen["dark", system] == seen[system, "as the system"]


def test_a_key_is_asked_for_and_kept_by_the_tab(page, sidecar, tmp_path):
    secret = "page-key-5e0f2c1b7a"
    with ModelServer(None, key=KEY, strict=False) as models:
        service = Service(models, sidecar, tmp_path, RLM_API_KEY=secret)
        try:
            page.open(service, "#/new")
            page.one("#key-dialog").find_element(By.ID, "key").send_keys(secret, Keys.ENTER)
            models.script = root(repl(answer("'open'")))
            page.one("#query").send_keys("q")
            page.one("#model").send_keys("root")
            page.click(".new button[type=submit]")
            page.one(".answer", "open")
            assert page.js("Object.values(sessionStorage)") == [secret]
            assert secret not in page.js("JSON.stringify(localStorage) + document.cookie + location.href")
            assert secret not in page.text("html")
            assert [error for error in page.errors() if "401" not in error] == []
        finally:
            service.close()
