# SPDX-License-Identifier: Apache-2.0
import random
import tempfile
import unittest
import uuid

import codemode_driver
from support import DriverTest


class Warmth(DriverTest):
    def test_warm_leaves_nothing_behind(self):
        missing = codemode_driver.warm()
        self.assertNotIn('json', missing)
        answer = self.run_cell('', context=None)
        self.assertEqual(answer.locals, {})
        self.assertEqual((answer.stdout, answer.stderr), ('', ''))
        self.assertIn('<cell 2>', self.failure('1 / 0', 'ZeroDivisionError').traceback)

    def test_reseed(self):
        drawn = []
        for _ in range(5):
            random.seed(1)  # as if every session began with the same memory
            uuid._node = 5
            codemode_driver.reseed()
            self.assertIsNone(uuid._node)
            drawn.append((random.random(), next(tempfile._get_candidate_names())))
        for values in zip(*drawn):
            self.assertEqual(len(set(values)), 5)


if __name__ == '__main__':
    unittest.main()
