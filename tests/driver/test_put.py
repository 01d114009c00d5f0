# SPDX-License-Identifier: Apache-2.0
import signal
import unittest

import codemode_driver
from codemode_driver import session
from support import DriverTest

TEXT, JSON, BYTES = session.PUT_TEXT, session.PUT_JSON, session.PUT_BYTES


class Put(DriverTest):
    def setUp(self):
        super().setUp()
        self.addCleanup(setattr, session, '_content', session._content)

    def put(self, name, kind, value, result_max=65536):
        """What the interpreter answers when `value` has come with the frame; an exception is raised instead."""
        def content(is_text):
            self.assertEqual(is_text, kind != BYTES)
            if isinstance(value, BaseException):
                raise value
            return value() if callable(value) else value
        session._content = content
        answer = codemode_driver.put(name, kind, result_max, 0)
        self.assertEqual(len(answer), 8)
        self.assertEqual(answer[5], '{}')
        return answer

    def refused(self, kind, *arguments, **options):
        success, result, error, error_type, *_ = self.put(*arguments, **options)
        self.assertFalse(success)
        self.assertIsNone(result)
        self.assertEqual(error_type, kind)
        self.assertTrue(error.startswith(f'{kind}: '), error)
        return error

    def test_values(self):
        for kind, value, result, text in (
                (TEXT, 'abc', 'str 3', "'abc'"), (TEXT, '', 'str 0', "''"), (BYTES, b'a\xff', 'bytes 2', r"b'a\xff'"),
                (JSON, '{"a": [1]}', 'dict 1', "{'a': [1]}"), (JSON, '[]', 'list 0', '[]'), (JSON, '"abc"', 'str 3', "'abc'"),
                (JSON, '1', 'int', '1'), (JSON, '1.5', 'float', '1.5'), (JSON, 'true', 'bool', 'True'), (JSON, 'null', 'NoneType', None)):
            self.assertEqual(self.put('x', kind, value)[:2], (True, result))
            self.assertEqual(self.value('x'), text)

    def test_a_variable_like_others(self):
        self.put('x', TEXT, 'abc')
        self.assertEqual(self.run_cell('y = 1').locals['x'], 'abc')
        self.value('del x')
        self.failure('x', 'NameError')

    def test_names(self):
        self.put('ﬁne', TEXT, 'abc')  # as code would write it
        self.assertEqual(self.value('ﬁne, fine'), "('abc', 'abc')")
        for name in ('class', 'None', 'a b', '1a', '', 'a.b', 'a€'):
            self.assertIn('is no name', self.refused('ValueError', name, TEXT, 'abc'))

    def test_refusals_leave_the_variable(self):
        self.put('x', TEXT, 'before')
        refused = (('ValueError', JSON, '{'), ('ValueError', JSON, ''), ('ValueError', JSON, '[' * 100000),
                   ('ValueError', TEXT, ValueError('the text is not UTF-8: byte 0xff at offset 7')),
                   ('MemoryError', TEXT, MemoryError()), ('KeyboardInterrupt', TEXT, KeyboardInterrupt()))
        for kind, how, value in refused:
            self.refused(kind, 'x', how, value)
            self.assertEqual(self.value('x'), "'before'")
        self.assertIn('offset 7', self.refused(*refused[3][:1], 'x', *refused[3][1:]))

    def test_what_json_is_not(self):
        self.assertEqual(self.refused('ValueError', 'x', JSON, '[1,]'),
                         'ValueError: not JSON: Illegal trailing comma before end of array: line 1 column 3 (char 2)')

    def test_an_interrupt_arrives(self):
        def interrupted():
            signal.raise_signal(signal.SIGINT)
            return 'after'
        self.put('x', TEXT, 'before')
        self.refused('KeyboardInterrupt', 'x', TEXT, interrupted)
        self.assertEqual(self.value('x'), "'before'")

    def test_the_code_s_handler_of_signals_is_not_asked(self):
        self.value('import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)')
        self.refused('KeyboardInterrupt', 'x', TEXT, lambda: signal.raise_signal(signal.SIGINT))

    def test_errors_are_cut(self):
        self.assertLess(len(self.refused('ValueError', 'x', TEXT, ValueError('a' * 100000), result_max=1024)), 1200)


if __name__ == '__main__':
    unittest.main()
