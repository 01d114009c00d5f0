# SPDX-License-Identifier: Apache-2.0
"""The optional look at code before it runs: `security.policy: strict`.

Advice, not the boundary. It reads the syntax tree, so comments, strings and a user's own names are no hits, and it does
not see what code makes up while it runs. It says the same for the same code, it never runs any of it, and code that it
refuses has changed nothing.

Where it cannot tell what a name stands for, it takes the name for what it was imported as in any branch. A builtin's
name counts as the user's own only where the user's binding is certain to be the one that is read.
"""

import ast
import builtins
import functools
import io
import tokenize
import types

NAMES_SHOWN = 10       # in one reason
FUNCTIONS_MAX = 10     # in one cell
STRING_MAX = 1000      # characters of one literal
CHAIN_MAX = 16         # attributes in a row that are followed
DEPTH_MAX = 8          # assignments and calls on the way from a name to its module
MEANINGS_MAX = 64      # of one name

#: The builtins that code may not read, and how a reason calls them.
BUILTINS = {
    '__import__': '__import__', '__builtins__': '__builtins__',
    **{name: f'{name}(' for name in '''eval exec compile open file input raw_input execfile reload vars dir globals locals
                                       delattr setattr getattr'''.split()},
}
#: Names that are no builtins any more. Where the user binds one, there is nothing else that it could be.
GHOSTS = frozenset(('file', 'raw_input', 'execfile', 'reload'))
#: The same objects under other names.
SAME = {'io.open': 'open', '_io.open': 'open', 'importlib.reload': 'reload', 'importlib.__import__': '__import__'}
#: Attributes and keys that lead from any object to the builtins.
WAYS = frozenset(('__builtins__', '__import__', '__globals__'))

IMPORTS = frozenset('''
    subprocess os.system os.popen os.spawn os.exec socket urllib urllib2 urllib3 httplib http.client ftplib telnetlib
    smtplib ssl ctypes multiprocessing threading asyncio.subprocess pty pwd grp resource signal sys.exit
    os.fork os.posix_spawn asyncio.create_subprocess_exec asyncio.create_subprocess_shell
    _posixsubprocess _socket _ssl _ctypes _multiprocessing _thread _signal codemode_driver _codemode
'''.split())
#: Of these, every function whose name begins so.
FAMILIES = ('os.popen', 'os.spawn', 'os.exec', 'os.fork', 'os.posix_spawn')
#: Functions that give the module that their first argument names.
IMPORTERS = frozenset(('builtins.__import__', 'importlib.import_module', 'importlib.__import__', 'importlib.util.find_spec',
                       'runpy.run_module', 'pkgutil.resolve_name', 'sys.modules.get'))

_HAVE_STATEMENTS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)
_OWN_SCOPE = (*_FUNCTIONS, ast.Lambda, ast.ClassDef)
_WAYS_OUT = (ast.Return, ast.Raise, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


class SecurityViolation(Exception):
    """The code is refused; its text is the answer's error."""

    def __init__(self, reason):
        super().__init__(f'Security violation: {reason}')


class Rules:
    """What is looked for. Each argument is a list of names between commas, and may be empty."""

    def __init__(self, blocked='', allowed='', safe=''):
        self.blocked = IMPORTS.union(filter(None, blocked.split(',')))
        self.allowed = frozenset(filter(None, allowed.split(',')))
        self.builtins = {name: label for name, label in BUILTINS.items() if name not in safe.split(',')}
        self.ways = WAYS.difference(safe.split(','))

    def blocks(self, path):
        """The entry that refuses a dotted name, or None. The longest entry decides, and a permission over a refusal."""
        if path.startswith('posix.'):  # what os takes its functions from
            path = path.replace('posix', 'os', 1)
        while path:
            if self._has(self.allowed, path):
                return None
            if self._has(self.blocked, path):
                return path
            path = path.rpartition('.')[0]
        return None

    @staticmethod
    def _has(entries, path):
        is_member = path.count('.') == 1 and any(path.startswith(name) and name in entries for name in FAMILIES)
        return is_member or path in entries


@functools.lru_cache(1)
def rules(line):
    """The rules that the first line of a strict execution's source names: blocked;allowed;builtins."""
    return Rules(*line.split(';'))


def check(tree, source, wanted, known):
    """Raises SecurityViolation unless the code passes.

    tree    of `source`, as a module
    wanted  Rules
    known   the names that the code finds bound, with their values
    """
    cell = _Cell(tree, source, wanted, known)
    cell.walk()
    for title, hits in (('Blocked pattern', cell.patterns), ('Blocked import', cell.imports), ('Suspicious pattern', cell.odd)):
        if hits:
            raise SecurityViolation(f'{title}(s) detected: {_listed(hits)}')


def _listed(hits):
    by_line = sorted(hits.items(), key=lambda hit: hit[1])
    shown = ', '.join(f'{label} (line {line})' for label, line in by_line[:NAMES_SHOWN])
    return shown + (f', and {len(hits) - NAMES_SHOWN} more' if len(hits) > NAMES_SHOWN else '')


def _children(node):
    found = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


class _Scope:
    """The names that one function, class, comprehension or the module binds: each with what it may stand for, a dotted
    name or an expression. Nothing stands for the user's own object."""

    def __init__(self, parent, is_class=False):
        self.parent = parent
        self.is_class = is_class
        self.names = {}
        self.found = {}  # what _Cell has made of the meanings

    def bind(self, name, *meanings):
        self.names.setdefault(name, {}).update(dict.fromkeys(meanings))


def _collect(scope, nodes):
    """Binds in `scope` what these nodes bind in it, whichever way the code goes."""
    elsewhere = set()
    todo = [(node, False) for node in nodes]  # with: inside a comprehension, where only `:=` binds
    while todo:
        node, inside = todo.pop()
        kind = type(node)
        if kind is ast.Name:
            if not inside and type(node.ctx) is ast.Store:
                scope.bind(node.id)
        elif kind in (ast.Global, ast.Nonlocal):
            elsewhere.update(node.names)
        elif kind is ast.Import:
            for alias in node.names:
                scope.bind(alias.asname or alias.name.partition('.')[0],
                           alias.name if alias.asname else alias.name.partition('.')[0])
        elif kind is ast.ImportFrom:
            for alias in node.names:
                scope.bind(alias.asname or alias.name, f'{node.module}.{alias.name}')
        elif kind is ast.Assign and len(node.targets) == 1 and type(node.targets[0]) is ast.Name:
            scope.bind(node.targets[0].id, node.value)
            todo.append((node.value, inside))
        elif kind is ast.NamedExpr:
            scope.bind(node.target.id, node.value)
            todo.append((node.value, inside))
        elif kind in _OWN_SCOPE:
            if kind is not ast.Lambda:
                scope.bind(node.name)
            todo.extend((child, inside) for child in _outer_parts(node))
        elif not isinstance(node, _LEAVES):
            name = getattr(node, 'rest', None) if kind is ast.MatchMapping else getattr(node, 'name', None)
            if name and kind in (ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping):
                scope.bind(name)
            inside = inside or kind in _COMPREHENSIONS
            todo += [(child, inside) for child in _children(node)]
    for name in elsewhere:
        scope.names.pop(name, None)


def _outer_parts(node):
    """What of a definition is evaluated around it."""
    if type(node) is ast.ClassDef:
        return [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]
    arguments = node.args
    parts = [*getattr(node, 'decorator_list', ()), *arguments.defaults, *filter(None, arguments.kw_defaults)]
    if type(node) is not ast.Lambda:
        parts += filter(None, [node.returns, *(argument.annotation for argument in _arguments(node))])
    return parts


def _arguments(function):
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg))]


def _text(node):
    """The value of a constant string, or None."""
    return node.value if type(node) is ast.Constant and type(node.value) is str else None


class _Cell:
    def __init__(self, tree, source, wanted, known):
        self.tree, self.source, self.rules, self.known = tree, source, wanted, known
        self.patterns, self.imports, self.odd = {}, {}, {}  # label: first line
        self.functions = 0
        self.found = {}  # meanings of the names that the cell does not bind
        self.stars = []  # modules of which everything is imported
        self.deleted = set()
        self.idle = set()  # strings that stand alone, as docstrings do
        self.module = _Scope(None)
        _collect(self.module, tree.body)
        self._look_ahead()

    def _look_ahead(self):
        """What of the whole cell has to be known before its first line is looked at."""
        shared, imports = set(), []
        for node in ast.walk(self.tree):
            kind = type(node)
            if kind is ast.Name and type(node.ctx) is ast.Del:
                self.deleted.add(node.id)
            elif kind is ast.Expr and type(node.value) is ast.Constant:
                self.idle.add(node.value)
            elif kind is ast.Global:
                shared.update(node.names)
            elif kind is ast.Import or kind is ast.ImportFrom and node.module:
                imports.append(node)
                self.stars += [node.module for alias in node.names if alias.name == '*']
        of_functions = _Scope(None)
        _collect(of_functions, imports)
        for name in shared & set(of_functions.names):
            self.module.bind(name, *of_functions.names[name])

    # The walk. Each entry of the stack has a node, its scope, and the builtins' names that the module is sure to have
    # bound when the node is evaluated. A node that is a set of names adds these to that.

    def walk(self):
        self._escapes()
        own = {name for name in self.rules.builtins if self._is_of_session(name) and name not in self.deleted}
        own |= {name for name in GHOSTS if name in self.module.names}
        todo = [(node, self.module, own) for node in reversed(self.tree.body)]
        while todo:
            node, scope, own = todo.pop()
            if type(node) is set:
                own |= node
            else:
                self._visit(node, scope, own)
                todo.extend(reversed(self._parts(node, scope, own)))

    def _is_of_session(self, name):
        """Whether the code finds `name` bound to something of the user's."""
        return name != '__builtins__' and name in self.known and self.known[name] is not vars(builtins).get(name, self)

    def _sure(self, *nodes):
        """The builtins' names that these nodes bind."""
        found = _Scope(None)
        _collect(found, nodes)
        return {name for name in found.names if name in self.rules.builtins and name not in self.deleted}

    def _parts(self, node, scope, own):
        """What is inside a node, in the order of evaluation."""
        kind = type(node)
        if isinstance(node, _LEAVES):
            return []
        if kind in _OWN_SCOPE:
            return self._definition(node, scope, own)
        if kind in _COMPREHENSIONS:
            inner = _Scope(scope)
            _collect(inner, [generator.target for generator in node.generators])
            first = node.generators[0].iter
            return [(first, scope, own), *((child, inner, own) for child in self._of_comprehension(node, first))]
        if scope is not self.module or not isinstance(node, _HAVE_STATEMENTS):
            return [(child, scope, own) for child in _children(node)]
        return self._of_module(node, own)

    @staticmethod
    def _of_comprehension(node, first):
        values = (node.key, node.value) if type(node) is ast.DictComp else (node.elt,)
        loops = [part for generator in node.generators for part in (generator.iter, *generator.ifs)]
        return [part for part in (*loops, *values) if part is not first]

    def _definition(self, node, scope, own):
        parts = [(part, scope, own) for part in _outer_parts(node)]
        inner = _Scope(scope, type(node) is ast.ClassDef)
        body = [node.body] if type(node) is ast.Lambda else node.body
        _collect(inner, body)
        sure = self._sure(node) if scope is self.module else set()
        if type(node) is not ast.ClassDef:
            for argument in _arguments(node):
                inner.bind(argument.arg)
            parts.append((sure, None, own))  # a function's body runs when its name is bound, a class's before
        parts.extend((child, inner, own) for child in body)
        parts.append((sure, None, own))
        return parts

    def _of_module(self, node, own):
        parts = []
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                parts.append((value, self.module, own))
            elif isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                inside = own | self._bound_inside(node, field)  # and forgotten after it: it may have been passed over
                parts.extend((child, self.module, inside) for child in value)
            elif isinstance(value, list):
                parts.extend((child, self.module, own) for child in value if isinstance(child, ast.AST))
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom)) and getattr(node, 'value', node):
            sure = self._sure(*(getattr(node, 'targets', None) or [getattr(node, 'target', node)]))
            if sure:
                parts.append((sure, None, own))
        return parts

    def _bound_inside(self, node, field):
        kind = type(node)
        if kind in (ast.For, ast.AsyncFor) and field == 'body':
            return self._sure(node.target)
        if kind in (ast.With, ast.AsyncWith):
            return self._sure(*(item.optional_vars for item in node.items if item.optional_vars))
        if kind is ast.ExceptHandler and node.name:
            return {node.name} & set(self.rules.builtins) - self.deleted
        return self._sure(node.pattern) if kind is ast.match_case else set()

    # What is looked for.

    def _visit(self, node, scope, own):
        kind = type(node)
        if kind is ast.Name:
            if type(node.ctx) is ast.Load:
                self._name(node, scope, own)
        elif kind in (ast.Attribute, ast.Call, ast.Subscript):
            self._reach(node, scope)
        elif kind is ast.Import:
            for alias in node.names:
                self._named(alias.name, node)
        elif kind is ast.ImportFrom and node.module and not node.level:
            for alias in node.names:
                self._named(node.module if alias.name == '*' else f'{node.module}.{alias.name}', node)
                if (node.module, alias.name) == ('builtins', '*'):
                    self._hit(self.patterns, '__builtins__', node)
        elif kind in _FUNCTIONS:
            self.functions += 1
            if self.functions == FUNCTIONS_MAX + 1:
                self._hit(self.odd, f'more than {FUNCTIONS_MAX} def', node)
        elif kind is ast.While:
            if type(node.test) is ast.Constant and node.test.value and 'while True:' not in self.odd and not _ends(node):
                self._hit(self.odd, 'while True:', node)
        elif kind is ast.Constant and type(node.value) in (str, bytes):
            if len(node.value) > STRING_MAX and node not in self.idle:
                self._hit(self.odd, f'string literal over {STRING_MAX} characters', node)

    def _name(self, node, scope, own):
        if node.id in self.rules.builtins and not self._is_users(node.id, scope, own):
            self._hit(self.patterns, self.rules.builtins[node.id], node)
        elif self.stars:
            for path in self._meanings(node.id, scope, 0):
                if path.partition('.')[0] != 'builtins':
                    self._named(path, node)

    @staticmethod
    def _hit(hits, label, node):
        hits[label] = min(node.lineno, hits.get(label, node.lineno))

    def _is_users(self, name, scope, own):
        while scope is not self.module:
            if not scope.is_class and name in scope.names:
                return True
            scope = scope.parent
        return name in own

    def _named(self, path, node):
        """A dotted name that the code imports or reads."""
        module, _, name = path.partition('.')
        builtin = name.partition('.')[0] if module == 'builtins' else SAME.get(path)
        if builtin in self.rules.builtins:
            self._hit(self.patterns, self.rules.builtins[builtin], node)
        blocked = self.rules.blocks(path)
        if blocked:
            self._hit(self.imports, blocked, node)

    def _reach(self, node, scope):
        """An attribute, a call or a subscript: what does it get hold of?"""
        attribute = self._attribute(node, scope)
        if attribute in self.rules.ways:
            self._hit(self.patterns, attribute, node)
        elif attribute == '__subclasses__' and _is_base(node.args[0] if type(node) is ast.Call else node.value):
            self._hit(self.patterns, attribute, node)
        if isinstance(getattr(node, 'ctx', None), (ast.Store, ast.Del)):
            return
        for path in self._paths(node, scope):
            self._named(path, node)

    def _attribute(self, node, scope):
        if type(node) is ast.Attribute:
            return node.attr
        if type(node) is ast.Subscript:
            return _text(node.slice)
        if len(node.args) > 1 and 'builtins.getattr' in self._paths(node.func, scope):
            return _text(node.args[1])
        return None

    # What an expression stands for: the dotted names that it may be.

    def _paths(self, node, scope, depth=0):
        tail = []
        while type(node) is ast.Attribute and len(tail) < CHAIN_MAX:
            tail.append(node.attr)
            node = node.value
        if depth > DEPTH_MAX:
            return []
        if type(node) is ast.Name:
            found = self._meanings(node.id, scope, depth)
        elif type(node) is ast.NamedExpr:
            found = self._paths(node.value, scope, depth + 1)
        elif type(node) is ast.Call and node.args:
            found = self._result(node, scope, depth + 1)
        elif type(node) is ast.Subscript and _text(node.slice):
            found = self._item(self._paths(node.value, scope, depth + 1), _text(node.slice))
        else:
            found = []
        return ['.'.join((base, *reversed(tail))) for base in found]

    def _meanings(self, name, scope, depth):
        inner = scope
        while scope is not None and (scope.is_class and scope is not inner or name not in scope.names):
            scope = scope.parent
        kept = scope.found if scope else self.found
        if name not in kept:
            kept[name] = []  # for a name that stands for itself
            kept[name] = self._all_meanings(name, scope, depth)
        return kept[name]

    def _all_meanings(self, name, scope, depth):
        found = []
        for meaning in scope.names[name] if scope else ():
            found += [meaning] if type(meaning) is str else self._paths(meaning, scope, depth + 1)
        if scope is None:
            found += [f'{module}.{name}' for module in self.stars]
            found += [f'builtins.{name}'] if name in BUILTINS and name not in self.known else []
        if scope in (None, self.module) and type(self.known.get(name)) is types.ModuleType:
            of_session = types.ModuleType.__dict__['__dict__'].__get__(self.known[name]).get('__name__')
            found += [of_session] if type(of_session) is str else []
        return list(dict.fromkeys(found))[:MEANINGS_MAX]

    def _result(self, call, scope, depth):
        found = []
        first, *others = call.args
        for function in self._paths(call.func, scope, depth):
            if function in IMPORTERS and _text(first):
                found.append(_text(first).replace(':', '.'))
            elif function == 'builtins.getattr' and others and _text(others[0]):
                found += [f'{base}.{_text(others[0])}' for base in self._paths(first, scope, depth)]
            elif function.endswith('.__dict__.get') and _text(first):
                found.append(function[:-len('__dict__.get')] + _text(first))
        return found

    @staticmethod
    def _item(bases, key):
        found = [key] if 'sys.modules' in bases else []
        return found + [base[:-len('__dict__')] + key for base in bases if base.endswith('.__dict__')]

    # Escapes are gone from the tree.

    def _escapes(self):
        """Finds letters that are written as numbers in a text: there is no reason but to hide them."""
        if not any(mark in self.source for mark in ('\\x', '\\u', '\\U')):
            return
        try:
            for line, text in _literals(self.source):
                for mark in _hidden(text):
                    self.odd[f'\\{mark} escape'] = min(line, self.odd.get(f'\\{mark} escape', line))
        except (tokenize.TokenError, SyntaxError):
            pass  # Python's parser has accepted what the tokenizer in Python does not


def _literals(source):
    """(line, source text) of each piece of text in which a backslash has a meaning."""
    prefixes = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING:
            prefix = token.string.partition("'")[0].partition('"')[0]
            if not set(prefix) & set('rRbB'):
                yield token.start[0], token.string
        elif token.type == tokenize.FSTRING_START:
            prefixes.append(token.string)
        elif token.type == tokenize.FSTRING_END:
            prefixes.pop()
        elif token.type == tokenize.FSTRING_MIDDLE and not set(prefixes[-1]) & set('rR'):
            yield token.start[0], token.string


def _hidden(text):
    """The kinds of escape by which a text names plain characters."""
    at = text.find('\\')
    while 0 <= at < len(text) - 1:
        mark = text[at + 1]
        digits = {'x': 2, 'u': 4, 'U': 8}.get(mark)
        if digits:
            try:
                if 0x20 <= int(text[at + 2:at + 2 + digits], 16) < 0x7f:
                    yield mark
            except ValueError:
                pass
        at = text.find('\\', at + 2)


def _is_base(node):
    """Whether an expression is `object`, or climbs to a class's bases."""
    while type(node) in (ast.Subscript, ast.Call, ast.Attribute):
        if type(node) is ast.Attribute and node.attr in ('__base__', '__bases__', '__mro__', 'mro'):
            return True
        node = node.func if type(node) is ast.Call else node.value
    return type(node) is ast.Name and node.id == 'object'


def _ends(loop):
    """Whether a loop without a condition has a way out of it, or gives others their turn."""
    todo = [(node, True) for node in loop.body]
    while todo:
        node, is_ours = todo.pop()
        kind = type(node)
        if kind in _WAYS_OUT or kind is ast.Break and is_ours:
            return True
        if kind is ast.Call and type(node.func) is ast.Name and node.func.id in ('exit', 'quit'):
            return True
        if kind in _OWN_SCOPE:
            continue
        if kind in _LOOPS:
            todo.extend((child, False) for child in node.body)
            todo.extend((child, is_ours) for child in node.orelse)
        else:
            todo += [(child, is_ours) for child in _children(node)]
    return False
