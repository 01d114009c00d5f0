# SPDX-License-Identifier: Apache-2.0
"""The names that code of a run finds in its session, beside `context`.

The service and the Python library make a module `rlm_session` of this file once in each session, then call `install(...)`,
and after each block `report()`, whose result is a JSON text: {"final": a text or null, "variables": {name: type}}, or where that
is long {"key": k}. Code that changes it harms its own run and nobody else.

What leaves the session goes through tools that the caller of the execution answers (`caller_tools`):

    rlm.llm_query(prompt, model)          -> text           rlm.rlm_query(prompt, model)          -> text
    rlm.llm_query_batched(prompts, model) -> list of text   rlm.rlm_query_batched(prompts, model) -> list of text
    rlm.part(key, text)                   -> null: one more piece of a long text
    rlm.tool(name, args, kwargs)          -> any: a function of the caller's own

A text is itself, or {"key": k} when it was sent in pieces under that key before; each key is used once.
"""

import builtins
import json

PART = 1 << 20         # characters of one piece
INLINE = 2 << 20       # characters of all texts of one call that are not sent in pieces
RESULT = 1000          # bytes of a result that every sidecar lets through
VARIABLES_MAX = 100    # names in a report
NAME_MAX = 100         # characters of one
SIMPLE = (str, int, float, bool, list, dict, tuple, set, bytes, type(None))

_space = {}            # the globals of the session's code
_kept = {}             # names that are put back after each block
_final = None          # (text,) once FINAL() or FINAL_VAR() was called
_parts = 0


def _tool(name):
    return builtins.tools['rlm.' + name]


def _text(value):
    """What has half of a surrogate pair in it is no text outside."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            value = str(value)
    return value.encode('utf-8', 'replace').decode()


def _send(text):
    """A long text goes in pieces; the key under which they are."""
    global _parts
    _parts += 1
    key = f'p{_parts}'
    for start in range(0, len(text), PART):
        _tool('part').run(key=key, text=text[start:start + PART])
    return {'key': key}


def _wire(texts):
    """The texts, those that find no room in one call replaced by keys."""
    room, sent = INLINE, []
    for text in texts:
        short = len(text) <= min(room, PART)
        room -= len(text) if short else 0
        sent.append(text if short else _send(text))
    return sent


def _reason(error):
    """What whoever refused a call has said, without the name of the call."""
    return getattr(error, 'text', None) or error


def _query(name):
    def query(prompt, model=None):
        try:
            return _tool(name).run(prompt=_wire([_text(prompt)])[0], model=model)
        except Exception as error:
            return f'Error: {_reason(error)}'
    query.__name__ = query.__qualname__ = name
    return query


def _batch(name):
    def query(prompts, model=None):
        prompts = [_text(prompt) for prompt in prompts]
        if not prompts:
            return []
        try:
            return _tool(name).run(prompts=_wire(prompts), model=model)
        except Exception as error:
            return [f'Error: {_reason(error)}'] * len(prompts)
    query.__name__ = query.__qualname__ = name
    return query


def _custom(name):
    def call(*args, **kwargs):
        try:
            return _tool('tool').run(name=name, args=list(args), kwargs=kwargs)
        except RuntimeError as error:
            raise RuntimeError(f'{name}: {_reason(error)}') from None
    call.__name__ = call.__qualname__ = name
    return call


def _variables():
    hidden = _kept.keys() | {'answer'}
    return {name: type(value).__name__ for name, value in list(_space.items())
            if not name.startswith('_') and name not in hidden and isinstance(value, SIMPLE)}


def SHOW_VARS():
    """The variables that there are, with their types."""
    found = {name: type(_space[name]).__name__ for name in _kept if name.startswith(('context', 'history'))} | _variables()
    return 'Variables: ' + (', '.join(f'{name} ({kind})' for name, kind in found.items()) or 'none')


def FINAL(value=''):
    """Ends the run with this answer, after the running block."""
    global _final
    _final = (_text(value),)


def FINAL_VAR(name):
    """Ends the run with the value of a variable. Takes its name, or the value itself."""
    if isinstance(name, str) and name.strip('\'" \n') in _space:
        return FINAL(_space[name.strip('\'" \n')])
    if isinstance(name, str) and name.isidentifier():
        print(f'Error: FINAL_VAR: there is no variable {name!r}. {SHOW_VARS()}')
        return None
    return FINAL(name)


def install(space, contexts=1, histories=0, custom=()):
    """Puts the names into `space`. Its context_0 ... and history_0 ... are there already; `custom` are names of functions
    that the caller of the execution answers."""
    global _space, _final
    _space, _final = space, None
    _kept.clear()
    _kept.update({name: _query(name) for name in ('llm_query', 'rlm_query')})
    _kept.update({name: _batch(name) for name in ('llm_query_batched', 'rlm_query_batched')})
    _kept.update({'SHOW_VARS': SHOW_VARS, 'FINAL': FINAL, 'FINAL_VAR': FINAL_VAR})
    _kept.update({name: _custom(name) for name in custom})
    for label, count in (('context', contexts), ('history', histories)):
        _kept.update({f'{label}_{index}': space[f'{label}_{index}'] for index in range(count)})
        if count:
            _kept[label] = space[f'{label}_0']
    space.update(_kept)
    space['answer'] = {'content': '', 'ready': False}


def _add(name, entry):
    if isinstance(entry, dict) and 'code' in entry:
        exec(compile(entry['code'], f'<{name}>', 'exec'), _space)
        if name not in _space:
            raise NameError('its code does not define it')
    else:
        _space[name] = entry['tool'] if isinstance(entry, dict) and 'tool' in entry else entry
    keep(name)


def add(tools):
    """Custom tools: {name: value}, {name: {"tool": value}} or {name: {"code": source that defines the name}}."""
    for name, entry in tools.items():
        try:
            _add(name, entry)
        except Exception as error:
            raise ValueError(f'`{name}`: {type(error).__name__}: {error}') from None


def _measure(value):
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_measure(name) + _measure(item) for name, item in value.items())
    return sum(map(_measure, value)) if isinstance(value, list) else len(str(value))


def about(name):
    """The type of a context, and how many characters its texts, names and numbers have."""
    return type(_space[name]).__name__, _measure(_space[name])


def keep(name):
    """A variable of the caller's has a new value: it is the one that is put back from now on."""
    _kept[name] = _space[name]


class _Told(str):
    """A result that is shown as it is, and that `_` does not keep: it is what the block has made it."""

    def __init__(self, text):
        self._last = {name: value for name, value in vars(builtins).items() if name == '_'}

    def __repr__(self):
        vars(builtins).pop('_', None)
        vars(builtins).update(self._last)
        return str(self)


def report():
    """Tells the caller whether there is an answer and which variables there are, and puts the names back."""
    global _final
    answer = _space.get('answer')
    if _final is None and isinstance(answer, dict) and answer.get('ready'):
        _final = (_text(answer.get('content', '')),)
    found, _final = _final, None
    _space.update(_kept)
    if not isinstance(answer, dict) or found:
        _space['answer'] = {'content': '', 'ready': False}
    names = {name[:NAME_MAX]: kind[:NAME_MAX] for name, kind in list(_variables().items())[:VARIABLES_MAX]}
    final = found and (found[0] if len(found[0]) <= RESULT else _send(found[0]))
    text = _text(json.dumps({'final': final, 'variables': names}, ensure_ascii=False))
    return _Told(text if len(text.encode()) <= RESULT else json.dumps(_send(text)))
