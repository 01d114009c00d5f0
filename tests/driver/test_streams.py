# SPDX-License-Identifier: Apache-2.0
import unittest

from support import DriverTest


class Streams(DriverTest):
    def test_two_streams(self):
        answer = self.run_cell('import sys\nprint("out")\nprint("err", file=sys.stderr)')
        self.assertEqual((answer.stdout, answer.stderr), ('out\n', 'err\n'))

    def test_flushed_at_the_end(self):
        answer = self.run_cell('print("a", end="")\nsys = __import__("sys")\nsys.stderr.write("b")')
        self.assertEqual((answer.stdout, answer.stderr), ('a', 'b'))

    def test_lines_arrive_as_they_are_printed(self):
        import builtins
        builtins.look = lambda: bytes(self.written[1])
        self.assertEqual(self.value('print("line")\nlook()'), "b'line\\n'")

    def test_encoding(self):
        self.assertEqual(self.run_cell('print("é\\ud800", "\\x00")').stdout, 'é\\ud800 \x00\n')
        self.assertEqual(self.value('sys = __import__("sys")\nsys.stdout.encoding, sys.stderr.encoding'), "('utf-8', 'utf-8')")

    def test_redirect(self):
        answer = self.run_cell('import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f: print(1)\n'
                               'f.getvalue()')
        self.assertEqual((answer.result, answer.stdout), ("'1\\n'", ''))

    def test_rebinding_stays(self):
        self.value('import io, sys\nkept = sys.stdout = io.StringIO()\nprint(1)')
        answer = self.run_cell('print(2)\nkept.getvalue()')
        self.assertEqual((answer.result, answer.stdout), ("'1\\n2\\n'", ''))
        self.value('class W:\n  def write(self, s): self.s = s\nsys.stdout = W()')
        self.assertEqual(self.value('print(end="x")\nsys.stdout.s'), "'x'")

    def test_traceback_goes_to_the_real_stderr(self):
        answer = self.failure('import io, sys\nsys.stderr = io.StringIO()\n1 / 0', 'ZeroDivisionError')
        self.assertEqual(answer.stderr, answer.traceback)

    def test_repair(self):
        for code in ('sys.stdout.close()', 'sys.stdout.detach()', 'sys.stdout = None', 'del sys.stdout', 'sys.stdout = 5',
                     'sys.stdout = io.StringIO()\nsys.stdout.close()', 'sys.__stdout__.close()'):
            self.run_cell('import io, sys\n' + code)
            self.assertEqual(self.run_cell('print(1)').stdout, '1\n', code)
        for code in ('sys.stderr.close()', 'del sys.stderr', 'sys.stderr = None'):
            self.run_cell(code)
            self.assertEqual(self.run_cell('print(1, file=sys.stderr)').stderr, '1\n', code)
            self.assertIn('ZeroDivisionError', self.run_cell('sys.stderr.close()\n1/0').stderr)

    def test_repair_survives_hostile_objects(self):
        self.run_cell('import sys\nclass E:\n  def __getattr__(self, n): raise SystemExit\nsys.stdout = E()')
        self.assertEqual(self.run_cell('print(1)').stdout, '1\n')

    def test_stdin_is_at_its_end(self):
        self.assertEqual(self.value('import sys\nsys.stdin.read(), sys.stdin.readline(), list(sys.stdin)'), "('', '', [])")
        self.run_cell('sys.stdin.close()')
        self.assertEqual(self.value('sys.stdin.read()'), "''")
        self.run_cell('del sys.stdin')
        self.assertEqual(self.value('sys.stdin.buffer.read()'), "b''")


if __name__ == '__main__':
    unittest.main()
