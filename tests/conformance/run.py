#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run CPython's own regression tests inside the sandbox, each module in a fresh session.

With --torture, each module also in a session that is frozen every few milliseconds and goes on in a fresh process:
both outcomes must be equal, test for test.

Every failure must be named in expected.txt, with its reason, and every name there must still fail; each module
must pass at least as many tests as are written there. So the list can only shrink, and a module that fails to
load, runs nothing, hangs or kills its worker is a failure like any other.

expected.txt has three kinds of line; '#' starts the reason, which is required for the first two:
    fail MODULE ID       # this test, or class set-up, fails
    skip MODULE          # the whole module does not apply
    passed MODULE COUNT
"""

import argparse
import concurrent.futures
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import archive

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
UNEXPLAINED = 'UNEXPLAINED'
RECORD = '\x1e'
REASONS_SHOWN = 6
FREEZES = re.compile(r'codemode-torture: (\d+) frozen (\d+) times')


class Server:
    """A private sidecar with the sandbox of that name, or the running one at `url`."""

    def __init__(self, options, sandbox='codemode-sandbox'):
        self.url = options.url
        self.process = None
        self._log = tempfile.TemporaryFile(mode='w+', prefix='codemode-log-')
        if not self.url:
            self._start(options, Path(options.codemode).with_name(sandbox))

    def _start(self, options, sandbox):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        limit = str(int(options.time_limit) + 60)
        self.process = subprocess.Popen(
            [options.codemode, 'serve', '--host', '127.0.0.1', '--port', str(port), '--max-timeout', limit,
             '--max-result', '1Mi', '--max-output', '16Mi', '--log-level', 'WARNING', '--sandbox', str(sandbox)],
            stderr=self._log)
        self.url = f'http://127.0.0.1:{port}'
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + '/ready', timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise SystemExit('the sidecar did not become ready\n' + self.log())

    def log(self):
        self._log.seek(0)
        return self._log.read()

    def freezes(self):
        """How often each session that was tortured has changed its process, at the least."""
        return {worker: int(count) for worker, count in FREEZES.findall(self.log())}

    def execute(self, code, context, timeout):
        body = json.dumps({'code': code, 'context': context, 'timeout': timeout}).encode()
        request = urllib.request.Request(self.url + '/execute', body, {'Content-Type': 'application/json'})
        with urllib.request.urlopen(request, timeout=timeout + 90) as answer:
            return json.load(answer)

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            sys.stderr.writelines(line for line in self.log().splitlines(True) if not FREEZES.match(line))


def last_test(stdout):
    """The test that was running when the module came to an end that it did not choose."""
    starts = [line for line in (stdout or '').splitlines() if line.startswith(RECORD)]
    return f' during {starts[-1][1:]}' if starts else ' before its first test'


def run_module(server, options, module):
    """The module's outcome as guest.py reports it; a module without a report gets a failure named `module`."""
    began = time.monotonic()
    code = (HERE / 'guest.py').read_text()
    context = {'archive': archive.pack(options.stdlib_tests, module), 'module': module}
    report = {'module': module, 'ran': 0, 'passed': 0, 'failed': {}, 'skips': {}, 'skipped_module': None}
    try:
        answer = server.execute(code, context, options.time_limit)
        if answer.get('success') and answer.get('result'):
            report = json.loads(answer['result'])
            if not report['ran'] and not report['failed'] and report['skipped_module'] is None:
                report['failed']['module'] = ['error', 'no test was found']
        else:
            text = answer.get('error') or 'no report'
            kind = 'timeout' if answer.get('error_type') == 'Timeout' or 'timeout' in text else 'error'
            report['failed']['module'] = [kind, text + last_test(answer.get('stdout')) + '\n' + (answer.get('traceback') or '')]
    except urllib.error.HTTPError as error:
        report['failed']['module'] = ['crash', f'HTTP {error.code}: {error.read(2000).decode(errors="replace")}']
    except (OSError, ValueError) as error:
        report['failed']['module'] = ['crash', f'{type(error).__name__}: {error}']
    report['seconds'] = round(time.monotonic() - began, 1)
    return report


def differences(plain, tortured):
    """Sentences about what the torture has changed."""
    wrong = [f'under torture: {kind}: {name}\n{detail.strip()}'
             for name, (kind, detail) in tortured['failed'].items() if name not in plain['failed']]
    wrong += [f'fails, but not under torture: {name}' for name in plain['failed'] if name not in tortured['failed']]
    wrong += [f'under torture: {what} {tortured[what]!r}, else {plain[what]!r}'
              for what in ('ran', 'passed', 'skips', 'skipped_module') if plain[what] != tortured[what]]
    return wrong


class Expected:
    def __init__(self, path, unexplained_too=False):
        self.path = path
        self.unexplained_too = unexplained_too
        self.fail, self.skip, self.passed = {}, {}, {}
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
            line, _, reason = line.partition('#')
            words = line.split(maxsplit=2)
            if words:
                self._add(words, reason.strip(), f'{path.name}:{number}')

    def _add(self, words, reason, where):
        kind, module, rest = words[0], words[1], ''.join(words[2:]).strip()
        if kind == 'passed':
            self.passed[module] = int(rest)
        elif kind in ('fail', 'skip') and reason and (reason != UNEXPLAINED or self.unexplained_too):
            (self.fail.setdefault(module, {}) if kind == 'fail' else self.skip)[rest if kind == 'fail' else module] = reason
        else:
            raise SystemExit(f'{where}: needs "fail", "skip" or "passed", and a reason')

    def check(self, report):
        """Sentences about what is not as written."""
        module, known = report['module'], self.fail.get(report['module'], {})
        wrong = [f'new failure: {name}' for name in report['failed'] if name not in known]
        ran = 'module' not in report['failed']
        wrong += [f'passes now, take it off the list: {name}' for name in known if ran and name not in report['failed']]
        if (report['skipped_module'] is not None) != (module in self.skip):
            wrong.append('the whole module is skipped' if module not in self.skip else 'is not skipped any more')
        if ran and module not in self.skip:
            least = self.passed.get(module)
            if least is None:
                wrong.append('no "passed" line')
            elif report['passed'] < least:
                wrong.append(f'{report["passed"]} tests passed, fewer than {least}')
        return wrong

    def update(self, reports):
        """Writes what was found; new failures await a reason, without which the file is not accepted."""
        for report in reports:
            module, known = report['module'], self.fail.get(report['module'], {})
            self.fail[module] = {name: known.get(name, UNEXPLAINED) for name in report['failed']}
            skipped = report['skipped_module'] is not None
            self.skip.pop(module, None) if not skipped else self.skip.setdefault(module, UNEXPLAINED)
            self.passed.pop(module, None)
            if not skipped and 'module' not in report['failed']:
                self.passed[module] = report['passed']
        lines = ['# What CPython\'s tests do inside the sandbox; see run.py for the form of a line.']
        for module in sorted({*self.fail, *self.skip, *self.passed}):
            lines += [f'fail {module} {name}  # {reason}' for name, reason in sorted(self.fail.get(module, {}).items())]
            lines += [f'skip {module}  # {self.skip[module]}'] if module in self.skip else []
            lines += [f'passed {module} {self.passed[module]}'] if module in self.passed else []
        self.path.write_text('\n'.join(lines) + '\n')


def show(report, wrong, known, note=''):
    verdict = 'skipped' if report['skipped_module'] is not None else 'ok' if not wrong else 'WRONG'
    skipped = sum(report['skips'].values())
    print(f'{report["module"]:44} {verdict:8}{report["passed"]:6} passed {len(report["failed"]):4} failed {skipped:5} skipped'
          f'{report["seconds"]:8.1f} s{note}')
    if report['skipped_module'] is not None:
        print(f'    skipped: {report["skipped_module"]}')
    reasons = sorted(report['skips'].items(), key=lambda item: -item[1])
    for reason, count in reasons[:REASONS_SHOWN]:
        print(f'    {count} skipped: {reason[:120]}')
    if len(reasons) > REASONS_SHOWN:
        print(f'    {sum(count for _, count in reasons[REASONS_SHOWN:])} skipped for {len(reasons) - REASONS_SHOWN} other reasons')
    for name, (kind, detail) in sorted(report['failed'].items()):
        if name in known:
            print(f'    known {kind}: {name} - {known[name]}')
        else:
            print(f'    NEW {kind}: {name}\n' + ''.join(f'        {line}\n' for line in detail.strip().splitlines()[-12:]), end='')
    for sentence in wrong:
        print(f'    WRONG: {sentence}')
    sys.stdout.flush()


def write_junit(path, results):
    suite = ElementTree.Element('testsuite', name='conformance', tests=str(len(results)),
                                failures=str(sum(bool(wrong) for _, wrong in results)))
    for report, wrong in results:
        case = ElementTree.SubElement(suite, 'testcase', classname='conformance', name=report['module'],
                                      time=str(report['seconds']))
        if wrong:
            ElementTree.SubElement(case, 'failure', message=wrong[0]).text = '\n'.join(wrong)
        elif report['skipped_module'] is not None:
            ElementTree.SubElement(case, 'skipped', message=report['skipped_module'])
    ElementTree.ElementTree(suite).write(path, encoding='utf-8', xml_declaration=True)


def parse():
    build = Path(os.environ.get('CODEMODE_BUILD') or ROOT / 'build')
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--codemode', default=str(build / 'codemode'), help='the program that serves (%(default)s)')
    parser.add_argument('--url', help='a running sidecar to use instead; its timeouts and limits must be wide enough')
    parser.add_argument('--stdlib-tests', type=Path, default=build / 'guest' / 'tests', metavar='DIR',
                        help='Lib/test of the same CPython (%(default)s)')
    parser.add_argument('--modules', metavar='A,B', help='only these')
    parser.add_argument('--quick', action='store_true', help='the modules marked "quick" (or "torture-quick") in modules.txt')
    parser.add_argument('--time-limit', type=float, default=180, metavar='SECONDS', help='of each module (%(default)s)')
    parser.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1), help='modules at once (%(default)s)')
    parser.add_argument('--torture', action='store_true',
                        help='the modules marked "torture", with codemode-sandbox and with codemode-torture')
    parser.add_argument('--update', action='store_true', help='write what was found to expected.txt; reasons are then to be added')
    parser.add_argument('--expected', type=Path, default=HERE / 'expected.txt', metavar='FILE')
    parser.add_argument('--junit', metavar='FILE', help='also write the outcome as JUnit XML')
    options = parser.parse_args()
    if options.torture and (options.url or options.update):
        parser.error('--torture starts its own sidecars and writes no list')
    if not (options.stdlib_tests / 'support').is_dir():
        parser.error(f'{options.stdlib_tests} is not a Lib/test folder; see --stdlib-tests')
    return options


def chosen(options):
    if options.modules:
        return [module for module in options.modules.split(',') if module]
    mark = ('torture-quick' if options.quick else 'torture') if options.torture else 'quick' if options.quick else None
    lines = [line.partition('#')[0].split() for line in (HERE / 'modules.txt').read_text().splitlines()]
    return [words[0] for words in lines if words and (not mark or mark in words)]


def run_plainly(options, expected):
    """Pairs of a report and what is wrong with it."""
    server = Server(options)
    results = []
    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for report in pool.map(lambda module: run_module(server, options, module), chosen(options)):
                wrong = expected.check(report)
                results.append((report, wrong))
                show(report, wrong, expected.fail.get(report['module'], {}))
    finally:
        server.stop()
    return results


def run_both_ways(options, expected):
    """The same; what is wrong includes every difference that torture makes."""
    servers = [Server(options), Server(options, 'codemode-torture')]
    results = []
    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for pair in pool.map(lambda module: [run_module(server, options, module) for server in servers], chosen(options)):
                wrong = expected.check(pair[0]) + differences(*pair)
                results.append((pair[0], wrong))
                show(pair[0], wrong, expected.fail.get(pair[0]['module'], {}), f', tortured{pair[1]["seconds"]:8.1f} s')
        freezes = servers[1].freezes()
    finally:
        for server in servers:
            server.stop()
    print(f'{len(freezes)} sessions were frozen at least {sum(freezes.values())} times')
    if len(freezes) < len(results):
        results[-1][1].append(f'only {len(freezes)} of {len(results)} sessions were tortured')
        print(f'    WRONG: {results[-1][1][-1]}')
    return results


def main():
    options = parse()
    expected = Expected(options.expected, options.update)
    results = (run_both_ways if options.torture else run_plainly)(options, expected)
    if options.update:
        expected.update([report for report, _ in results])
    if options.junit:
        write_junit(options.junit, results)
    reports = [report for report, _ in results]
    bad = sum(bool(wrong) for _, wrong in results)
    print(f'{len(results)} modules, {bad} not as expected: {sum(r["passed"] for r in reports)} tests passed, '
          f'{sum(len(r["failed"]) for r in reports)} failed, {sum(sum(r["skips"].values()) for r in reports)} skipped')
    return 1 if bad or not results else 0


if __name__ == '__main__':
    sys.exit(main())
