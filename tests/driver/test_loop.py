# SPDX-License-Identifier: Apache-2.0
import unittest

from codemode_driver import loop
from support import DriverTest


class Asyncio(DriverTest):
    def setUp(self):
        super().setUp()
        self.value('import asyncio, threading, time\nasync def add(a, b):\n  await asyncio.sleep(0.001)\n  return a + b')

    def test_top_level_await(self):
        self.assertEqual(self.value('await add(1, 2)'), '3')
        self.assertEqual(self.value('x = await add(1, 2)\nx * 2'), '6')
        self.assertEqual(self.value('async with asyncio.timeout(1): y = 1\ny'), '1')
        self.assertEqual(self.value('[x async for x in (x async for x in g())]'
                                    if not self.value('async def g():\n  yield 1') else ''), '[1]')

    def test_run(self):
        self.assertEqual(self.value('asyncio.run(add(1, 2))'), '3')
        self.assertEqual(self.value('asyncio.run(add(1, 2)) + asyncio.run(add(3, 4))'), '10')
        self.assertEqual(self.value('await add(1, 2)'), '3')
        self.assertEqual(self.value('with asyncio.Runner(loop_factory=asyncio.EventLoop) as r: z = r.run(add(1, 2))\nz'), '3')

    def test_one_loop_for_the_session(self):
        self.value('async def current(): return asyncio.get_running_loop()\nfirst = await current()')
        self.assertEqual(self.value('asyncio.run(current()) is first'), 'False')
        self.assertEqual(self.value('await current() is first'), 'True')
        self.assertEqual(self.value('asyncio.get_event_loop() is first'), 'True')
        self.assertEqual(self.value('asyncio.get_event_loop().run_until_complete(add(1, 2))'), '3')

    def test_closed_loop_is_replaced(self):
        self.value('asyncio.get_event_loop().close()')
        self.assertEqual(self.value('await add(1, 2)'), '3')

    def test_combinators(self):
        self.assertEqual(self.value('await asyncio.gather(*(add(i, i) for i in range(5)))'), '[0, 2, 4, 6, 8]')
        self.assertEqual(self.value('async with asyncio.TaskGroup() as g: t = g.create_task(add(1, 1))\nt.result()'), '2')
        self.failure('await asyncio.wait_for(asyncio.sleep(5), 0.01)', 'TimeoutError')
        self.failure('async with asyncio.timeout(0.01): await asyncio.sleep(5)', 'TimeoutError')
        self.assertEqual(self.value('''
queue, event = asyncio.Queue(2), asyncio.Event()
async def produce():
    for i in range(5): await queue.put(i)
    event.set()
task = asyncio.create_task(produce())
got = [await queue.get() for i in range(5)]
await event.wait()
got'''), '[0, 1, 2, 3, 4]')

    def test_sleeps_overlap(self):
        self.assertEqual(self.value('t = time.monotonic()\nawait asyncio.gather(*[asyncio.sleep(0.05)] * 1, '
                                    '*(asyncio.sleep(0.05) for i in range(20)))\ntime.monotonic() - t < 0.5'), 'True')

    def test_threads(self):
        self.assertEqual(self.value('await asyncio.to_thread(max, 1, 2)'), '2')
        self.assertEqual(self.value('await asyncio.get_running_loop().run_in_executor(None, max, 1, 2)'), '2')
        self.assertEqual(self.value('''
t = time.monotonic()
await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for i in range(4)))
time.monotonic() - t < 0.19'''), 'True')
        self.failure('await asyncio.to_thread(lambda: 1 / 0)', 'ZeroDivisionError')

    def test_wake_from_a_thread(self):
        self.assertEqual(self.value('''
loop = asyncio.get_running_loop()
future = loop.create_future()
t = time.monotonic()
thread = threading.Timer(0.02, loop.call_soon_threadsafe, [future.set_result, 7])
thread.start()
(await future, time.monotonic() - t < 1)'''), '(7, True)')
        self.assertEqual(self.value('asyncio.run_coroutine_threadsafe(add(1, 2), loop) and None\nawait add(2, 2)'), '4')

    def test_left_over_tasks_go_on(self):
        self.value('seen = []\nasync def tick():\n  for i in range(3):\n    await asyncio.sleep(0.001)\n    seen.append(i)\n'
                   'task = asyncio.create_task(tick())\nawait asyncio.sleep(0)')
        self.assertEqual(self.value('await task\nseen'), '[0, 1, 2]')

    def test_policy_reset(self):
        self.value('asyncio.set_event_loop_policy(None)')
        self.assertEqual(self.value('asyncio.run(add(1, 2))'), '3')
        self.assertIs(type(loop.Policy().new_event_loop()), loop.Loop)

    def test_what_it_cannot_do(self):
        self.failure('asyncio.get_running_loop().add_reader(0, print)\nawait add(1, 2)', 'NotImplementedError')
        self.failure('await asyncio.create_subprocess_exec("true")', 'NotImplementedError')

    def test_error_in_a_coroutine(self):
        trace = self.failure('async def fail(): 1 / 0\nawait asyncio.gather(fail())', 'ZeroDivisionError').traceback
        self.assertIn('in fail', trace)


class Sleeper(unittest.TestCase):
    def test_a_wake_is_not_lost(self):
        sleeper = loop.Sleeper()
        sleeper.wake()
        sleeper.wake()
        self.assertEqual(sleeper.select(None), ())
        self.assertEqual(sleeper.select(0.001), ())
        self.assertEqual(sleeper.select(0), ())
        self.assertEqual(sleeper.select(-1), ())


if __name__ == '__main__':
    unittest.main()
