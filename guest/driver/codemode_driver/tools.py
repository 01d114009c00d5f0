# SPDX-License-Identifier: Apache-2.0
"""The names `tools`, `agents`, `crews` and `flows`: what code sees of the application's tools.

They are builtins, and so are the functions that tools with plain names become: a name of the user's own wins over them,
modules that the user writes see them, and no list of the user's variables does. Of a tool only its name and two flags
are known at first; its schema is asked for when somebody looks at its signature or docstring.
"""

import builtins
import collections.abc
import difflib
import inspect
import json
import keyword

from . import calls, errors, schema
from .errors import shown

ASYNC, CONTEXT = 1, 2  # flags of a tool
NAMES_SHOWN = 10       # of tools, in an error
_META = ('__list__', '__schema__', '__search__')
_NO_SERVICE = 'no tool service is configured: the server was started without one (CODEMODE_MAIN_APP_TARGET)'


def _document(tool):
    return tool._catalog.described(tool._name)[1] or None


class Tool:
    # One tool of the application. (A class without a __doc__ of its own would hide the one that it inherits.)

    __doc__ = property(_document)
    __slots__ = ('_catalog', '_name', '_flags', '_timeout')

    def __init__(self, catalog, name, flags, timeout=None):
        self._catalog, self._name, self._flags, self._timeout = catalog, name, flags, timeout

    @property
    def name(self):
        return self._name

    @property
    def is_async(self):
        return bool(self._flags & ASYNC)

    @property
    def has_context(self):
        return bool(self._flags & CONTEXT)

    @property
    def __name__(self):
        return self._name

    @property
    def __signature__(self):
        found = self._catalog.described(self._name)[0]
        if found is None:
            raise AttributeError('the schema could not be read')
        return found

    def __repr__(self):
        known = self._catalog.known(self._name)
        return f'<{"async " if self._flags & ASYNC else ""}tool {self._name}{known[0] if known and known[0] else ""}>'

    def _request(self, positional, arguments, context=None):
        if positional:
            raise TypeError(self._catalog.only_by_name(self._name, positional))
        if context is not None:
            if not isinstance(context, dict):
                raise TypeError(f'{shown(self._name)}: the context must be a dict, not {type(context).__name__}')
            context = calls.encode(self._name, context, 'context')
        return calls.Request(self._name, calls.encode(self._name, arguments), context, self._timeout)

    def run(self, /, *positional, **arguments):
        """Calls the tool and returns its result."""
        return self._request(positional, arguments).block()

    def run_with_context(self, /, context, **arguments):
        """Calls the tool with a context of its own, a dict, whose members win over those of the request's."""
        return self._request((), arguments, context).block()

    def with_timeout(self, seconds):
        """The same tool, whose calls end with ToolTimeout after so many seconds (never later than the server's limit)."""
        if not seconds > 0:
            raise ValueError(f'{shown(self._name)}: a timeout is a number of seconds above 0')
        return type(self)(self._catalog, self._name, self._flags, float(seconds))

    def __call__(self, /, *positional, **arguments):
        return self.run(*positional, **arguments)


class AsyncTool(Tool):
    # One tool of the application whose calls are awaited.

    __doc__ = property(_document)
    __slots__ = ()

    def _named(self, request):
        coroutine = request.finish()
        coroutine.__qualname__ = f'{shown(self._name)}.run'  # for the warning about one that was never awaited
        return coroutine

    @inspect.markcoroutinefunction
    def run(self, /, *positional, **arguments):
        """Calls the tool; `await` gives its result."""
        return self._named(self._request(positional, arguments))

    @inspect.markcoroutinefunction
    def run_with_context(self, /, context, **arguments):
        """Calls the tool with a context of its own, a dict, whose members win over those of the request's; `await` gives
        its result."""
        return self._named(self._request((), arguments, context))


class _Agent:
    __doc__ = property(_document)
    __slots__ = ()

    def execute_task(self, /, task, context=None):
        """Lets the agent do a task: a text, or a dict."""
        return self.run(task=task) if context is None else self.run(task=task, context=context)


class _Startable:
    __doc__ = property(_document)
    __slots__ = ()

    def kickoff(self, /, inputs=None):
        """Starts it, with a dict of inputs."""
        return self.run() if inputs is None else self.run(inputs=inputs)


class Agent(_Agent, Tool):
    # An agent of the application.

    __doc__ = property(_document)
    __slots__ = ()


class AsyncAgent(_Agent, AsyncTool):
    # An agent of the application whose calls are awaited.

    __doc__ = property(_document)
    __slots__ = ()


class Startable(_Startable, Tool):
    # A crew or a flow of the application.

    __doc__ = property(_document)
    __slots__ = ()


class AsyncStartable(_Startable, AsyncTool):
    # A crew or a flow of the application whose calls are awaited.

    __doc__ = property(_document)
    __slots__ = ()


class SchemaTool(Tool):
    # tools['__schema__']: all about one tool.

    __doc__ = property(_document)
    __slots__ = ()

    def run(self, /, *positional, name=None, tool_name=None):
        """{tool_name, input_schema, output_schema, description, is_async, has_context} of the tool of that name."""
        if positional or (name is None) == (tool_name is None):
            raise TypeError("tools['__schema__'].run() takes the name of one tool: run(name='...')")
        return self._request((), {'name': name if tool_name is None else tool_name}).block()


class SearchTool(Tool):
    # tools['__search__']: tools by what they do.

    __doc__ = property(_document)
    __slots__ = ()

    def run(self, /, *positional, query, limit=10):
        """The tools that fit a query best: {tools, count}, like tools['__list__'].run()."""
        return self._request(positional, {'query': query, 'limit': limit}).block()


class Catalog:
    """The tools that the running execution may call."""

    def __init__(self):
        self.text = None  # as the execution's list came; None: there is no tool service
        self.flags = {}
        self._proxies = {}
        self._described = {}
        self._functions = {}  # what we have put into builtins
        self.spaces = [Tools(self), *(Space(self, name, *kinds) for name, *kinds in (
            ('agents', Agent, AsyncAgent), ('crews', Startable, AsyncStartable), ('flows', Startable, AsyncStartable)))]

    def install(self):
        for space in self.spaces:
            setattr(builtins, space._label, space)

    def update(self, text):
        """Takes an execution's list: the text of a JSON array of [name, flags], or None."""
        if text == self.text:
            return
        self.text = text
        self.flags = {name: flags for name, flags in json.loads(text)} if text else {}
        self._proxies, self._described = {}, {}
        for name, function in self._functions.items():
            if builtins.__dict__.get(name) is function:
                delattr(builtins, name)
        self._functions = {}
        for name in self.spaces[0]:
            if is_plain(name) and not hasattr(builtins, name):
                self._functions[name] = self.spaces[0][name]
                setattr(builtins, name, self._functions[name])

    def proxy(self, name, kind, async_kind):
        found = self._proxies.get(name)
        if found is None:
            flags = self.flags.get(name, 0)
            found = self._proxies[name] = (async_kind if flags & ASYNC else kind)(self, name, flags)
        return found

    def known(self, name):
        return self._described.get(name)

    def described(self, name):
        """(signature, docstring); asks the gateway once. Never raises but for an interrupt."""
        found = self._described.get(name)
        if found is None:
            found = self._describe(name)
            if found[0] is not None:
                self._described[name] = found
        return found

    def _describe(self, name):
        if name in _META:
            kind = {'__schema__': SchemaTool, '__search__': SearchTool}.get(name, Tool)
            return inspect.signature(kind.run), inspect.cleandoc(_META_DOCS[name])
        try:
            told = calls.Request('__schema__', calls.encode('__schema__', {'name': name})).block()
            takes, gives = schema.as_object(told.get('input_schema')), schema.as_object(told.get('output_schema'))
            return schema.signature(takes), schema.document(told, takes, gives)
        except Exception as error:
            return None, f'The schema of {shown(name)} could not be read: {error}'

    def look_again(self, name):
        """When there are no tools because nobody could be asked for them, says what the gateway knows by now."""
        if self.text != '[]':
            return
        told = calls.Request('__list__', calls.encode('__list__', {})).block()
        if told['tools']:
            raise errors.ToolUnavailable(name, 'the tools were not known yet when this execution began; run it again')

    def only_by_name(self, name, positional):
        example = ', '.join(f'{parameter}=...' for parameter in getattr(self.described(name)[0], 'parameters', ()))
        return (f"{shown(name)} takes its arguments by name, not by position: run({example or 'name=value, ...'}); "
                f'{len(positional)} came without a name')


_META_DOCS = {
    '__list__': 'All tools: {"tools": [{name, description, is_async, has_context, ...}], "count": n}.',
    '__schema__': 'All about one tool, by name.',
    '__search__': 'Tools by what they do: those that fit a query best.',
}


def is_plain(name):
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith('_')


class Space(collections.abc.Mapping):
    """A read-only dict of names and what can be called under them."""

    def __init__(self, catalog, label, kind, async_kind):
        self._catalog, self._label, self._kind, self._async_kind = catalog, label, kind, async_kind
        self._prefix = f'{label}.'

    def __iter__(self):
        return iter([name[len(self._prefix):] for name in self._catalog.flags if name.startswith(self._prefix)])

    def __len__(self):
        return sum(1 for _ in self)

    def __contains__(self, name):
        return isinstance(name, str) and self._prefix + name in self._catalog.flags

    def __getitem__(self, name):
        if name not in self:
            self._catalog.look_again(self._full(name))
            raise errors.UnknownTool(self._full(name), self._missing(name))
        return self._catalog.proxy(self._prefix + name, self._kind, self._async_kind)

    def __getattr__(self, name):
        if name.startswith('_') or name not in self:
            raise AttributeError(f'{self._label} has no {name!r}: {self._missing(name)}', name=name, obj=self)
        return self[name]

    def __dir__(self):
        return [*super().__dir__(), *filter(is_plain, self)]

    def __repr__(self):
        names = list(self)
        more = f', ... {len(names) - NAMES_SHOWN:,} more' if len(names) > NAMES_SHOWN else ''
        return f'<{self._label}: {", ".join(names[:NAMES_SHOWN]) or "none"}{more}>'

    def _full(self, name):
        return self._prefix + name if isinstance(name, str) else repr(name)

    def _missing(self, name):
        """Why there is no such name, and which one may be meant."""
        if self._catalog.text is None:
            return _NO_SERVICE
        names = list(self)
        if not names:
            return f'this execution has no {self._label}'
        near = difflib.get_close_matches(name, names, NAMES_SHOWN) if isinstance(name, str) else []
        if near:
            return f'there is no such name; did you mean {" or ".join(map(repr, near[:3]))}?'
        more = f' and {len(names) - NAMES_SHOWN:,} more' if len(names) > NAMES_SHOWN else ''
        return f'there is no such name; there are {", ".join(map(repr, names[:NAMES_SHOWN]))}{more}'


class Tools(Space):
    """A read-only dict of the application's tools by name: tools['name'].run(argument=value).

    tools['__list__'].run() lists them, tools['__search__'].run(query='...') finds some of them, and help(tools['name'])
    or tools['__schema__'].run(name='...') tells all about one.
    """

    def __init__(self, catalog):
        super().__init__(catalog, 'tools', Tool, AsyncTool)
        self._prefix = ''
        self._meta = {'__list__': Tool(catalog, '__list__', 0), '__schema__': SchemaTool(catalog, '__schema__', 0),
                      '__search__': SearchTool(catalog, '__search__', 0)}

    def __iter__(self):
        return iter([name for name in self._catalog.flags if name in self])

    def __contains__(self, name):
        return (isinstance(name, str) and name in self._catalog.flags and not name.startswith('__')
                and not name.startswith(('agents.', 'crews.', 'flows.')))

    def __getitem__(self, name):
        if isinstance(name, str) and name in self._meta and self._catalog.text is not None:
            return self._meta[name]
        return super().__getitem__(name)


catalog = Catalog()


def _in_asyncio(error):
    walk = error.__traceback__
    while walk is not None and walk.tb_next is not None:
        walk = walk.tb_next
    return walk is not None and '/asyncio/' in walk.tb_frame.f_code.co_filename


def hint(error):
    """Tells one who awaits, or gathers, the results of a tool that is not async."""
    last = calls.last_sync
    if not last or type(error) is not TypeError or len(error.args) != 1 or type(error.args[0]) is not str:
        return
    tool, kind = last
    text = error.args[0]
    if (text == f"object {kind.__name__} can't be used in 'await' expression"
            or text in (f"unhashable type: '{kind.__name__}'", 'An asyncio.Future, a coroutine or an awaitable is required')
            and _in_asyncio(error)):
        error.args = (f'{text}: {shown(tool)} is not async, its run() returns the result itself; do not await it '
                      '(threads make calls overlap: concurrent.futures.ThreadPoolExecutor)',)


def begin(text, calls_max, argument_max):
    """Before each execution."""
    calls.begin(calls_max, argument_max, _NO_SERVICE if text is None else None)
    catalog.update(text)


def install():
    errors.install()
    catalog.install()
