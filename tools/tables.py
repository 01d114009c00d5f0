#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Keep the tables of README.md and docs equal to tables/*.def: tables.py --check | --write

A table stands between "<!-- NAME: made by ./dev fmt -->" and "<!-- end -->".
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def calls(file, macro):
    """Yield the arguments of each call of the macro; strings lose their quotes."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "tables" / file).read_text(), flags=re.S)
    for match in re.finditer(rf"^{macro}\((.*?)\)$", text, flags=re.S | re.M):
        strings = TEXT.findall(match.group(1))
        plain = TEXT.sub(lambda _: "\0", match.group(1))
        yield [strings.pop(0) if part.strip() == "\0" else part.strip() for part in plain.split(",")]


def settings(table="config"):
    reloads = {field for (field,) in calls(f"{table}_names.def", "CM_CONFIG_RELOAD")}
    yield "| setting | variable | flag | default | SIGHUP | meaning |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for field, kind, env, flag, _, _, default, unit, text in calls(f"{table}.def", "CM_CONFIG"):
        value = f"`{default}`" + (f" {unit}" if unit in ("seconds", "USD") else "") if default else "none"
        yield f"| `{field}` | `{env}` | `{flag}` | {value} | {'yes' if field in reloads else ''} | {text} |"


def settings_rlm():
    return settings("rlm_config")


def aliases():
    yield "| variable | setting |"
    yield "| --- | --- |"
    names = {}
    for env, field in calls("config_names.def", "CM_CONFIG_ALIAS"):
        names.setdefault(env, []).append(f"`{field}`")
    for env, fields in names.items():
        yield f"| `{env}` | {', '.join(fields)} |"
    for env, _, only, reason in calls("config_names.def", "CM_CONFIG_REFUSED"):
        yield f"| `{env}` | only {f'`{only}`' if only else 'an empty one'} is accepted: {reason} |"


def keys(wanted):
    wants = {"TEXT": "text", "SECRET": "text, never shown", "PATH": "path", "UINT": "number", "BYTES": "size", "SECONDS": "time", "LEVEL": "level",
             "BOOL": "true or false", "TARGET": "HOST:PORT", "URL": "URL", "LIST": "list of texts", "MAP": "mapping"}  # fmt: skip
    yield "| key | value | default | sets | variable | meaning |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for kind, path, type_, low, high, choices, default, use, fields, env, text in calls("config_files.def", "CM_FILE_KEY"):
        if kind != wanted:
            continue
        value = ", ".join(f"`{choice}`" for choice in choices.split("|")) if choices else wants[type_]
        value += f", {low} to {high}" if type_ in ("UINT", "SECONDS") else ""
        default = "must be there" if use in ("REQUIRED", "NEEDED") else f"`{default}`" if default else "none"
        effect = {"ONLY": "only the default is accepted", "CLIENT": "client library", "REQUIRED": "client library", "NOTE": "nothing",
                  "CONFIG": "`config` of the code", "SETTINGS": "settings by name"}.get(use)  # fmt: skip
        effect = effect or ", ".join(f"`{field}`" for field in fields.split(","))
        yield f"| `{path}` | {value} | {default} | {effect} | {f'`{env}`' if env else ''} | {text} |"


def keys_unified():
    return keys("UNIFIED")


def keys_sidecar():
    return keys("SIDECAR")


def keys_client():
    return keys("CLIENT")


def keys_rlm():
    return keys("RLM")


def metrics_rlm():
    rows = {row[0]: row for table in ("metrics.def", "rlm_metrics.def") for row in calls(table, "CM_METRIC")}
    own = [row[0] for row in calls("rlm_metrics.def", "CM_METRIC")] + [name for (name,) in calls("rlm_metrics.def", "CM_METRIC_SHARED")]
    yield "| metric | type | label | what it counts |"
    yield "| --- | --- | --- | --- |"
    for id_ in own:
        _, type_, name, label, _, text = rows[id_]
        yield f"| `{name}` | {'counter' if type_ == 'MICROS' else type_.lower()} | {'' if label == 'NULL' else f'`{label}`'} | {text} |"


def errors():
    yield "| status | `code` | what to do |"
    yield "| --- | --- | --- |"
    rows = [(http, code, text) for _, _, http, _, code, _, text in calls("errors.def", "CM_ERROR")]
    for http, code, text in sorted(rows):
        yield f"| {http} | `{code}` | {text} |"


def limits():
    defaults = {env: value for _, _, env, _, _, _, value, _, _ in calls("config.def", "CM_CONFIG")}
    scopes = {"EXECUTION": "session, execution", "SESSION": "session", "SERVER": "nobody"}
    yield "| limit | default | cap | asked for by | least | what it counts |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for _, name, unit, scope, _, def_key, _, cap_key, least, text in calls("limits.def", "CM_LIMIT"):
        unit = {"SECONDS": " seconds", "BYTES": " bytes", "COUNT": ""}[unit]
        shown = [f"`{key}` = {defaults[key]}" for key in (def_key, cap_key)]
        yield f"| `{name}` | {shown[0]} | {shown[1]} | {scopes[scope]} | {least}{unit} | {text} |"


PAGES = {
    "README.md": (errors,),
    "docs/limits.md": (limits,),
    "docs/configuration.md": (keys_unified, keys_sidecar, keys_client, settings, aliases, keys_rlm, settings_rlm),
    "docs/rlm-api.md": (metrics_rlm,),
}


def renewed(page, text):
    for rows in PAGES[page]:
        begin, end = f"<!-- {rows.__name__}: made by ./dev fmt -->\n", "<!-- end -->"
        head, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{page} has no table {rows.__name__}")
        text = head + begin + "\n".join(rows()) + "\n" + rest[rest.index(end) :]
    return text


def main():
    status = 0
    for page in PAGES:
        old = (ROOT / page).read_text()
        new = renewed(page, old)
        if sys.argv[1:] == ["--write"]:
            (ROOT / page).write_text(new)
        elif new != old:
            print(f"{page} differs from tables/*.def: run ./dev fmt")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
