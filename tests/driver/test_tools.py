# SPDX-License-Identifier: Apache-2.0
"""The names that stand for the application's tools. The gateway is played by Bridge."""

import asyncio
import builtins
import inspect
import json
import threading
import unittest

from support import DriverTest

from codemode_driver import calls, loop, tools

TOOLS = [['weather', 0], ['search', 1], ['get-user', 0], ['print', 0], ['broken', 0], ['slow', 1], ['agents.helper', 0],
         ['crews.team', 1], ['flows.daily', 0], ['for', 0]]
SCHEMAS = {
    'weather': {
        'description': 'The weather of a place.',
        'input_schema': {
            'type': 'object',
            'properties': {
                'days': {'type': 'integer', 'default': 3},
                'city': {'type': 'string', 'description': 'Name of\n the city'},
                'unit': {'enum': ['C', 'F'], 'default': 'C'},
                'tags': {'anyOf': [{'type': 'array', 'items': {'$ref': '#/$defs/Tag'}}, {'type': 'null'}]},
            },
            'required': ['city'],
            '$defs': {'Tag': {'type': 'string'}},
        },
        'output_schema': {'type': 'object', 'properties': {'temperature': {'type': 'number'}}},
    },
}


class Bridge:
    """What the gateway does of a call: see answer()."""

    def __init__(self):
        self.made, self.cancelled, self.left, self.refuse = [], [], {}, None
        self.listed = []  # what is known by now

    def call(self, name, arguments, context, timeout_ms, sleeper):
        if self.refuse is not None:
            return self.refuse
        self.made.append((name, json.loads(arguments), context and json.loads(context), timeout_ms))
        handle = len(self.made)
        answer = (handle, *self.answer(name, self.made[-1][1]))
        if sleeper is None:
            self.left[handle] = answer
        elif name == 'slow':
            threading.Timer(0.05, sleeper.put, [answer]).start()
        else:
            sleeper.put(answer)
        return handle

    def answer(self, name, arguments):
        if name == 'broken':
            return arguments.get('why', 0), 'it is broken'
        if name == '__schema__':
            told = SCHEMAS.get(arguments['name'])
            return (-1, json.dumps({'tool_name': arguments['name'], **told})) if told else (1, 'nothing is known of it')
        if name == '__list__':
            return -1, json.dumps({'tools': self.listed, 'count': len(self.listed)})
        return -1, json.dumps({'tool': name, **arguments})

    def wait_call(self, handle):
        return self.left.pop(handle)

    def cancel_call(self, handle):
        self.cancelled.append(handle)


class ToolsTest(DriverTest):
    tool_list = json.dumps(TOOLS)

    def setUp(self):
        self.addCleanup(tools.begin, None, 0, 0)
        super().setUp()
        for place, name in ((calls, 'bridge'), (loop, 'Sleeper')):
            self.addCleanup(setattr, place, name, getattr(place, name))
        self.bridge = calls.bridge = Bridge()
        loop.Sleeper = loop.PlainSleeper

    def run_cell(self, code, **options):
        return super().run_cell(code, **{'tool_list': self.tool_list, 'tool_calls': 10, 'tool_argument': 1000, **options})

    def error(self, code, error_type='ToolError', **options):
        return self.failure(code, error_type, **options).error


class Calls(ToolsTest):
    def test_run(self):
        self.assertEqual(self.value('tools["weather"].run(city="x", days=2)'), "{'tool': 'weather', 'city': 'x', 'days': 2}")
        self.assertEqual(self.value('tools.weather(city="y")["city"], weather(city="z")["city"]'), "('y', 'z')")
        self.assertEqual(self.value('tools["get-user"].run(id=1)["id"]'), '1')
        self.assertEqual(self.bridge.made[0], ('weather', {'city': 'x', 'days': 2}, None, 0))

    def test_context(self):
        self.value('weather.run_with_context({"user": 1}, city="x")\nweather.run_with_context(context={"user": 2}, city="x")')
        self.assertEqual([made[2] for made in self.bridge.made], [{'user': 1}, {'user': 2}])
        self.assertIn('must be a dict, not list', self.error('weather.run_with_context([1])', 'TypeError'))

    def test_timeout(self):
        self.value('weather.with_timeout(0.0005).run()\nawait search.with_timeout(2.5).run()')
        self.assertEqual([made[3] for made in self.bridge.made], [1, 2500])
        self.error('weather.with_timeout(0)', 'ValueError')
        self.error('weather.with_timeout(float("nan"))', 'ValueError')

    def test_async(self):
        self.assertEqual(self.value('await tools["search"].run(q="x")'), "{'tool': 'search', 'q': 'x'}")
        self.assertEqual(self.value('import asyncio\n[r["q"] for r in await asyncio.gather(*[search(q=i) for i in range(5)])]'),
                         '[0, 1, 2, 3, 4]')
        self.assertEqual(self.value('async def main():\n    async with asyncio.TaskGroup() as group:\n'
                                    '        a = group.create_task(slow(i=1))\n        b = group.create_task(search(i=2))\n'
                                    '    return a.result()["i"] + b.result()["i"]\nasyncio.run(main())'), '3')
        self.assertEqual(self.value('inspect = __import__("inspect")\n[inspect.iscoroutinefunction(t.run) for t in (search, weather)]'),
                         '[True, False]')

    def test_async_cancelled(self):
        self.error('import asyncio\nawait asyncio.wait_for(slow(), 0.01)', 'TimeoutError')
        self.assertEqual(self.bridge.cancelled, [1])

    def test_many_at_once_wait_for_their_turn(self):
        self.addCleanup(setattr, loop, 'CALLS_MAX', loop.CALLS_MAX)
        loop.CALLS_MAX = 3
        self.assertEqual(self.value('import asyncio\n'
                                    'tasks = [asyncio.create_task(slow(i=i)) for i in range(8)]\n'
                                    'await asyncio.sleep(0)\nawait asyncio.sleep(0)\ntasks[5].cancel()\n'
                                    'out = await asyncio.gather(*tasks, return_exceptions=True)\n'
                                    '[type(o).__name__ for o in out].count("dict")'), '7')
        self.assertEqual(len(self.bridge.made), 7)

    def test_never_awaited(self):
        answer = self.run_cell('search(q=1)\nNone')
        self.assertIn('was never awaited', answer.stderr)
        self.assertIn("tools['search']", answer.stderr)

    def test_from_threads_and_other_loops(self):
        self.assertEqual(self.value('from concurrent.futures import ThreadPoolExecutor\n'
                                    'with ThreadPoolExecutor(4) as pool:\n'
                                    '    out = list(pool.map(lambda i: weather(i=i)["i"], range(9)))\nout'),
                         str(list(range(9))))

    def test_awaiting_a_plain_tool(self):
        self.assertIn("tools['weather'] is not async", self.error('await weather()', 'TypeError'))
        self.assertIn("tools['weather'] is not async", self.error('import asyncio\nawait asyncio.gather(weather())', 'TypeError'))
        self.assertNotIn('weather', self.error('weather()\nawait 1', 'TypeError'))

    def test_agents_crews_flows(self):
        self.value('agents["helper"].execute_task("do it")\nagents.helper.execute_task("do it", {"a": 1})\n'
                   'await crews["team"].kickoff()\nawait crews["team"].kickoff(inputs={"x": 1})\n'
                   'flows["daily"].kickoff({"y": 2})\nflows["daily"].run(z=3)')
        self.assertEqual([made[:2] for made in self.bridge.made], [
            ('agents.helper', {'task': 'do it'}), ('agents.helper', {'task': 'do it', 'context': {'a': 1}}),
            ('crews.team', {}), ('crews.team', {'inputs': {'x': 1}}), ('flows.daily', {'inputs': {'y': 2}}),
            ('flows.daily', {'z': 3})])
        self.assertEqual(self.value('list(agents), list(crews), list(flows)'), "(['helper'], ['team'], ['daily'])")
        self.assertIn("did you mean 'helper'", self.error('agents["helpr"]', 'UnknownTool'))

    def test_meta(self):
        self.value('tools["__list__"].run()\ntools["__schema__"].run(name="weather")\ntools["__schema__"].run(tool_name="weather")\n'
                   'tools["__search__"].run(query="rain")\ntools["__search__"].run(query="rain", limit=3)')
        self.assertEqual([made[:2] for made in self.bridge.made], [
            ('__list__', {}), ('__schema__', {'name': 'weather'}), ('__schema__', {'name': 'weather'}),
            ('__search__', {'query': 'rain', 'limit': 10}), ('__search__', {'query': 'rain', 'limit': 3})])
        self.assertIn('takes the name of one tool', self.error('tools["__schema__"].run()', 'TypeError'))


class Failures(ToolsTest):
    def test_kinds(self):
        names = ['ToolError', 'UnknownTool', 'ToolArgumentError', 'ToolLimitError', 'ToolTimeout', 'ToolUnavailable', 'ToolError',
                 'ToolError']
        for why, name in enumerate(names):
            self.assertEqual(self.error(f'broken(why={why})', name), f"{name}: tools['broken']: it is broken")
        self.assertEqual(self.value('try: broken()\nexcept RuntimeError as e: r = e.tool, e.text, str(e)\nr'),
                         '(\'broken\', \'it is broken\', "tools[\'broken\']: it is broken")')
        for kind, why in (('KeyError', 1), ('ValueError', 2), ('TypeError', 2), ('TimeoutError', 4), ('OSError', 4)):
            self.assertEqual(self.value(f'try: broken(why={why})\nexcept {kind}: r = 1\nr'), '1')
        self.error('broken(why=-3)', 'ToolError')
        self.error('broken(why=-2)', 'MemoryError')

    def test_limits(self):
        for refuse, words in ((-1, 'its 10 calls (limits.tool_calls)'), (-2, 'more than 1,000 bytes'), (0, 'too many')):
            self.bridge.refuse = refuse
            self.assertIn(words, self.error('weather()', 'ToolLimitError'))
        self.bridge.refuse = -1
        self.assertIn('may not call tools', self.error('weather()', 'ToolLimitError', tool_calls=0))
        self.assertIn('its 10 calls', self.error('await search()', 'ToolLimitError'))

    def test_unknown_names(self):
        self.assertIn("did you mean 'weather'?", self.error('tools["weathr"]', 'UnknownTool'))
        self.assertIn("did you mean 'weather'?", self.error('tools.weathr', 'AttributeError'))
        self.assertIn("there are 'weather', 'search', ", self.error('tools["qqqqq"]', 'UnknownTool'))
        self.error('tools["agents.helper"]', 'UnknownTool')
        self.error('tools["__secret__"]', 'UnknownTool')
        self.error('tools[1]', 'UnknownTool')
        self.error('try: tools["nope"]\nexcept KeyError: raise ValueError from None', 'ValueError')
        self.assertIn('no tool service is configured', self.error('tools["weather"]', 'UnknownTool', tool_list=None))
        self.assertIn('this execution has no tools', self.error('tools["weather"]', 'UnknownTool', tool_list='[]'))
        self.bridge.listed = [{'name': 'weather'}]
        self.assertIn('run it again', self.error('tools["weather"]', 'ToolUnavailable', tool_list='[]'))

    def test_positional(self):
        self.assertIn('run(city=..., days=..., unit=..., tags=...)', self.error('weather("x")', 'TypeError'))
        self.assertIn('takes its arguments by name', self.error('tools["get-user"].run(1)', 'TypeError'))
        self.assertFalse([made for made in self.bridge.made if made[0] != '__schema__'])

    def test_arguments(self):
        for text, kind, words in (
                ('a=float("nan")', 'ValueError', 'argument a is nan'), ('a=[1, {"b": -float("inf")}]', 'ValueError', "a[1]['b'] is -inf"),
                ('a={1: 2}', 'TypeError', 'a has the key 1'), ('a=b"x"', 'TypeError', 'base64'), ('a={1}', 'TypeError', 'list(x)'),
                ('a=2**53 + 1', 'ValueError', 'beyond 2**53'), ('a=-2**60', 'ValueError', 'beyond 2**53'),
                ('a="\\ud800"', 'ValueError', 'surrogate'), ('**{"\\ud800": 1}', 'ValueError', 'surrogate'),
                ('a=object()', 'TypeError', 'of type object'), ('a=search()', 'TypeError', 'await it first'),
                ('a=__import__("datetime").date.today()', 'TypeError', 'isoformat')):
            self.assertIn(words, self.error(f'weather({text})', kind), text)
        self.assertIn('inside itself', self.error('a = []\na.append(a)\nweather(a=a)', 'ValueError'))
        self.assertEqual(self.bridge.made, [])
        self.value('import enum\nclass E(enum.IntEnum):\n    A = 1\nclass S(str): pass\n'
                   'weather(a=(1, (2,)), b=2**53, c=-2**53, d=True, e=None, f=E.A, g=S("x"), h=1.5, i="ä")')
        self.assertEqual(self.bridge.made[0][1], {'a': [1, [2]], 'b': 2**53, 'c': -2**53, 'd': True, 'e': None, 'f': 1, 'g': 'x',
                                                  'h': 1.5, 'i': 'ä'})

    def test_arguments_are_taken_at_once(self):
        self.value('a = [1]\nc = search(a=a)\na.append(2)\nawait c')
        self.assertEqual(self.bridge.made[0][1], {'a': [1]})


class Names(ToolsTest):
    def test_mapping(self):
        self.assertEqual(self.value('list(tools), len(tools)'),
                         "(['weather', 'search', 'get-user', 'print', 'broken', 'slow', 'for'], 7)")
        self.assertEqual(self.value('"weather" in tools, "__list__" in tools, 1 in tools, tools.get("x"), [*tools.keys()][0]'),
                         "(True, False, False, None, 'weather')")
        self.assertEqual(self.value('tools'), '<tools: weather, search, get-user, print, broken, slow, for>')
        self.assertEqual(self.value('tools["weather"], tools["search"]'), '(<tool weather>, <async tool search>)')
        self.assertEqual(self.value('"weather" in dir(tools), "get-user" in dir(tools)'), '(True, False)')
        self.assertEqual(self.value('tools["search"].is_async, weather.is_async, weather.has_context'), '(True, False, False)')
        self.assertEqual(self.value('tools["weather"] is tools.weather is weather'), 'True')

    def test_no_service(self):
        self.assertEqual(self.value('len(tools), list(agents), tools', tool_list=None), '(0, [], <tools: none>)')
        self.error('weather', 'NameError', tool_list=None)

    def test_plain_functions(self):
        self.assertIs(builtins.print, print)
        answer = self.run_cell('x = weather()')
        self.assertEqual(set(answer.locals), {'x'})
        self.assertEqual(self.value('weather = 5\nweather'), '5')
        self.assertEqual(self.value('weather'), '5')  # also in the next execution
        self.assertEqual(self.value('del weather\nweather'), '<tool weather>')
        self.assertEqual(self.value('tools = 1\ntools'), '1')
        self.assertEqual(self.value('del tools\nlen(tools)'), '7')

    def test_another_list(self):
        self.value('old = weather')
        self.assertEqual(self.value('other(a=1)["a"], list(tools)', tool_list='[["other", 0]]'), "(1, ['other'])")
        self.error('weather', 'NameError', tool_list='[["other", 0]]')
        self.error('other', 'NameError')
        self.assertEqual(self.value('old(a=1)["a"]', tool_list='[["other", 0]]'), '1')  # the gateway decides
        self.assertIn('no tool service', self.error('old(a=1)', 'UnknownTool', tool_list=None))

    def test_a_module_of_the_users_sees_them(self):
        self.assertEqual(self.value('import types\nm = types.ModuleType("m")\nexec("def f(): return tools[\'weather\'].run(a=1)", vars(m))\n'
                                    'm.f()["a"]'), '1')


class Schemas(ToolsTest):
    def test_signature(self):
        self.assertEqual(self.value('import inspect\nstr(inspect.signature(weather))'),
                         repr("(*, city: str, days: int = 3, unit: Literal['C', 'F'] = 'C', tags: list[str] | None = None)"))
        self.assertEqual(self.value('weather').count('city: str'), 1)
        self.value('weather.__doc__, inspect.signature(weather)')
        self.assertEqual(len(self.bridge.made), 1)
        self.assertEqual(self.value('str(inspect.signature(search))'), "'(*positional, **arguments)'")

    def test_help(self):
        text = self.run_cell('help(tools["weather"])').stdout
        for words in ('The weather of a place.', 'city (str): Name of the city', 'days (int, default 3)', 'temperature (float',
                      "unit (Literal['C', 'F'], default 'C')"):
            self.assertIn(words, text)
        self.assertIn('could not be read', self.run_cell('help(search)').stdout)
        self.assertIn('name', self.run_cell('help(tools["__schema__"])').stdout)

    def test_asked_again_for_another_list(self):
        self.value('weather.__doc__')
        self.value('weather.__doc__', tool_list='[["weather", 0]]')
        self.assertEqual(len(self.bridge.made), 2)

    def test_strange_schemas(self):
        from codemode_driver import schema
        for text in ('null', '[]', '3', '{"properties": 3}', '{"properties": {"a": 3, "for": {}, "b c": {}}}', '{"type": ["string", 3]}',
                     '{"properties": {"a": {"$ref": "#/properties/a"}}}', '{"properties": {"a": {"enum": [[1]]}, "b": {"anyOf": [1]}}}',
                     '{"properties": {"a": {"type": "array", "items": {"type": "array", "items": {"$ref": "#"}}}}}', '{', '{"required": 3}'):
            found = schema.as_object(text)
            self.assertIsInstance(schema.signature(found), inspect.Signature)
            self.assertIsInstance(schema.document({'description': 3}, found, found), str)


if __name__ == '__main__':
    unittest.main()
