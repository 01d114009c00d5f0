# SPDX-License-Identifier: Apache-2.0
"""Signatures and docstrings of tools, made from their JSON Schemas."""

import inspect
import json
import keyword
import typing

MEMBERS_MAX = 100  # shown of one schema
_NAMES = {'string': str, 'integer': int, 'number': float, 'boolean': bool, 'object': dict, 'null': None}


def as_object(schema):
    """A schema that may have come as a text."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError:
            return {}
    return schema if isinstance(schema, dict) else {}


def _resolve(schema, root):
    """Follows a reference into the schema itself, as Pydantic writes them."""
    for _ in range(8):
        reference = schema.get('$ref') if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith('#/'):
            break
        schema = root
        for step in reference[2:].split('/'):
            schema = schema.get(step.replace('~1', '/').replace('~0', '~')) if isinstance(schema, dict) else None
    return schema if isinstance(schema, dict) else {}


def _union(kinds):
    found = typing.Any
    for kind in kinds:
        if kind is typing.Any:
            return typing.Any
        found = kind if found is typing.Any else found | kind if found is not None else kind | None
    return found


def annotation(schema, root, depth=0):
    """The type of a value: what a reader would write, not a check."""
    schema = _resolve(schema, root)
    if depth > 4:
        return typing.Any
    values = schema.get('enum')
    if isinstance(values, list) and values and all(type(value) in (str, int, bool) for value in values):
        return typing.Literal[tuple(values[:MEMBERS_MAX])]
    for word in ('anyOf', 'oneOf'):
        if isinstance(schema.get(word), list) and schema[word]:
            return _union([annotation(one, root, depth + 1) for one in schema[word][:MEMBERS_MAX]])
    kind = schema.get('type')
    if isinstance(kind, list) and kind:
        return _union([annotation({**schema, 'type': one}, root, depth + 1) for one in kind])
    if kind == 'array':
        items = annotation(schema.get('items'), root, depth + 1) if 'items' in schema else typing.Any
        return list if items is typing.Any else list[items]
    return _NAMES.get(kind, typing.Any) if isinstance(kind, str) else typing.Any


def _members(schema):
    """(name, schema, is required), those that are required first."""
    properties = schema.get('properties')
    required = schema.get('required')
    required = required if isinstance(required, list) else ()
    if not isinstance(properties, dict):
        return []
    found = [(name, properties[name], name in required) for name in list(properties)[:MEMBERS_MAX]]
    return sorted(found, key=lambda member: not member[2])


def signature(schema):
    """An inspect.Signature of keyword-only parameters; **arguments where the schema names none or allows others."""
    parameters = []
    for name, member, required in _members(schema):
        if not name.isidentifier() or keyword.iskeyword(name):
            continue
        member = _resolve(member, schema)
        kind = annotation(member, schema)
        default = inspect.Parameter.empty if required else member.get('default')
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default,
                                            annotation=inspect.Parameter.empty if kind is typing.Any else kind))
    if not parameters or schema.get('additionalProperties'):
        parameters.append(inspect.Parameter('arguments', inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _kind_text(member, root):
    kind = annotation(member, root)
    return 'any' if kind is typing.Any else inspect.formatannotation(kind).replace('typing.', '')


def _member_line(name, member, required, root):
    resolved = _resolve(member, root)
    notes = _kind_text(resolved, root)
    if not required:
        notes += f', default {resolved["default"]!r}' if 'default' in resolved else ', optional'
    text = member.get('description') if isinstance(member, dict) else None
    text = text or resolved.get('description')
    return f'    {name} ({notes})' + (f': {" ".join(text.split())}' if isinstance(text, str) and text else '')


def document(described, input_schema, output_schema):
    """A docstring."""
    parts = []
    if isinstance(described.get('description'), str) and described['description'].strip():
        parts.append(described['description'].strip())
    members = _members(input_schema)
    if members:
        parts.append('\n'.join(['Arguments:', *(_member_line(*member, input_schema) for member in members)]))
    results = _members(output_schema)
    if results:
        parts.append('\n'.join(['Result:', *(_member_line(*member, output_schema) for member in results)]))
    elif output_schema:
        parts.append(f'Result: {_kind_text(output_schema, output_schema)}')
    return '\n\n'.join(parts)
