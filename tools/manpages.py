#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Write the manual pages, made of tables/*.def: manpages.py VERSION FOLDER"""

import re
import sys
from pathlib import Path

from tables import calls

WANTS = {
    "TEXT": "a text", "SECRET": "a text that is never shown", "PATH": "a path", "UINT": "a whole number", "BYTES": "a size such as 512Mi",
    "SECONDS": "seconds, or a time such as 250ms", "LEVEL": "DEBUG, INFO, WARNING, ERROR or CRITICAL", "BOOL": "true or false",
    "TARGET": "HOST:PORT", "URL": "a URL", "LIST": "a list of texts", "MAP": "a mapping", "NUMBER": "a number", "PORTS": "ports, separated by commas",
}  # fmt: skip
EFFECTS = {
    "ONLY": "Only the default is accepted.", "CLIENT": "For the client library.", "REQUIRED": "For the client library. Must be there.",
    "NEEDED": "Must be there.", "NOTE": "Has no effect.",
}  # fmt: skip

INTRO = """Runs Python that a language model wrote: in sandboxes, with state. Each session is a process of its own that may do little
more than read and write one socket."""

EXIT = [
    ("0", "success"),
    ("1", "the code raised an exception; the thing that was checked or asked of Docker is not right or did not work"),
    ("2", "wrong usage, or settings that are wrong"),
    ("3", "no sidecar, sandbox or session to run in"),
    ("124", "timeout"),
    ("130", "interrupted"),
]

RLM_INTRO = """Recursive language model inference: the context of a query becomes a variable in a sandboxed session; a model looks at it with code, asks models
about parts of it, and says when it has the answer."""

RLM_EXIT = [
    ("0", "success"),
    ("1", "the run has failed; what there is so far is printed"),
    ("2", "wrong usage, or settings that are wrong"),
    ("3", "no sidecar, model or service"),
    ("124", "the run's time is over"),
    ("130", "interrupted"),
]

FILE_INTRO = """The configuration files of codemode: codemode.yaml for an application and its executor together, codemode-sidecar.yaml for the
executor alone, codemode-client.yaml for the client library. Their keys tell them apart."""

RULES = """${VAR} in a value stands for a variable of the environment, and it is an error when that is not set. ${VAR:-text} stands for the text when
the variable is unset or empty. $$ is a dollar sign. Variables cannot stand in keys or inside one another. Unknown keys, keys that are there twice, anchors,
aliases, tags, more than 1 MiB or 16 levels are errors. Keys that this program can do nothing for are refused unless their value asks for nothing."""


def plain(text):
    """A text as roff shows it, with what it would take for itself escaped."""
    text = text.replace("\\n", "\n").replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def item(term, *paragraphs):
    yield f".TP\n{term}"
    for number, text in enumerate(filter(None, paragraphs)):
        yield (".br\n" if number else "") + plain(text)


def head(name, section, version, brief):
    yield f'.TH {name.upper()} {section} "" "codemode {version}" "Codemode"'
    yield f".SH NAME\n{plain(name)} \\- {plain(brief)}"


def flag(letter, name, value, kind="ONE"):
    short = f"\\fB\\-{letter}\\fR, " if letter else ""
    return f"{short}\\fB{plain(name)}\\fR" + (f" \\fI{plain(value)}\\fR" if value else "") + ("..." if kind == "MANY" else "")


def verbs(table):
    """Yield (words, operands, brief, more) in the order of the table."""
    rows = {}
    for words, _, operands, _, brief, more in calls(table, "CM_VERB"):
        rows[words] = (operands, brief, more)
    for words, _, operands, _, brief in calls(table, "CM_VERB_RAW"):
        rows[words] = (operands, brief, "")
    source = (Path(__file__).resolve().parent.parent / "tables" / table).read_text()
    for words in re.findall(r'^CM_VERB(?:_RAW)?\("([^"]+)"', source, flags=re.M):
        yield (words, *rows[words])


def page_main(version):
    yield from head("codemode", 1, version, "run Python in sandboxes")
    yield ".SH SYNOPSIS\n\\fBcodemode\\fR \\fIVERB\\fR [\\fIarguments\\fR]\n.SH DESCRIPTION"
    yield plain(INTRO)
    yield from list_verbs("codemode", "verbs.def", ("serve", "doctor", "config show"))
    yield from exit_status(EXIT)
    yield ".SH SEE ALSO\n\\fBcodemode\\-serve\\fR(1), \\fBcodemode.yaml\\fR(5), \\fBrlm\\fR(1)"


def page_rlm(version):
    yield from head("rlm", 1, version, "answer queries about contexts of any size")
    yield ".SH SYNOPSIS\n\\fBrlm\\fR \\fIVERB\\fR [\\fIarguments\\fR]\n.SH DESCRIPTION"
    yield plain(RLM_INTRO)
    yield from list_verbs("rlm", "rlm_verbs.def", ("serve", "complete", "config"))
    yield from exit_status(RLM_EXIT)
    yield ".SH SEE ALSO\n\\fBrlm\\-serve\\fR(1), \\fBcodemode\\fR(1)"


def exit_status(codes):
    yield ".SH EXIT STATUS"
    for code, text in codes:
        yield from item(f"\\fB{code}\\fR", text)


def list_verbs(program, table, with_settings):
    yield ".SH VERBS"
    for words, operands, brief, more in verbs(table):
        yield f".SS {plain(words)}" + (f" {plain(operands)}" if operands else "")
        yield plain(brief[0].upper() + brief[1:] + ".")
        if more:
            yield ".PP\n" + plain(more)
        for owner, letter, name, value, kind, default, text in calls(table, "CM_FLAG"):
            if owner == words:
                yield from item(flag(letter, name, value, kind), text, f"Default: {default}" if default else "")
        if words in with_settings:
            yield f".PP\nIt takes the flags of \\fB{program}\\-serve\\fR(1)."


def page_serve(version):
    yield from head("codemode-serve", 1, version, "serve sessions of sandboxed Python over HTTP and gRPC")
    yield ".SH SYNOPSIS\n\\fBcodemode serve\\fR [\\fB\\-c\\fR \\fIFILE\\fR] [\\fIflags\\fR]\n.SH DESCRIPTION"
    yield plain(
        "Serves until SIGTERM or SIGINT; then running executions get DRAIN_TIMEOUT, and a second signal ends it at once. A flag wins over its "
        "variable, a variable over the configuration file, the file over the default."
    )
    yield ".PP\n" + plain("SIGHUP loads the settings again: those that say so below change at once, and the log names those that need a restart.")
    yield ".SH OPTIONS"
    yield from item(flag("c", "--config", "FILE"), "The configuration file; without it that of CODEMODE_SIDECAR_CONFIG, ./codemode-sidecar.yaml or ./codemode.yaml.")
    yield from list_settings("config")
    yield ".SH SEE ALSO\n\\fBcodemode\\fR(1), \\fBcodemode.yaml\\fR(5)"


def page_rlm_serve(version):
    yield from head("rlm-serve", 1, version, "serve recursive language model inference over HTTP")
    yield ".SH SYNOPSIS\n\\fBrlm serve\\fR [\\fB\\-c\\fR \\fIFILE\\fR] [\\fIflags\\fR]\n.SH DESCRIPTION"
    yield plain(
        "Serves until SIGTERM or SIGINT; then runs get DRAIN_TIMEOUT, and a second signal ends it at once. A flag wins over its variable, a variable over "
        "the configuration file, the file over the default. Without WASM_MANAGER_SERVICE_URL it starts a private sidecar, codemode serve, and ends it."
    )
    yield ".PP\n" + plain("SIGHUP loads the settings again: those that say so below change at once, and the log names those that need a restart.")
    yield ".SH OPTIONS"
    yield from item(flag("c", "--config", "FILE"), "The configuration file; without it that of RLM_CONFIG, or ./rlm.yaml.")
    yield from list_settings("rlm_config")
    yield ".SH FILE\n" + plain("YAML, or JSON. " + RULES)
    yield from list_keys("RLM")
    yield ".SH SEE ALSO\n\\fBrlm\\fR(1), \\fBcodemode\\-serve\\fR(1)"


def list_settings(table):
    reloads = {field for (field,) in calls(f"{table}_names.def", "CM_CONFIG_RELOAD")}
    for field, kind, env, name, low, high, default, unit, text in calls(f"{table}.def", "CM_CONFIG"):
        bounds = f", {low} to {high}" if kind in ("UINT", "SECONDS", "BYTES", "PORTS", "NUMBER") else ""
        yield from item(flag("", name, "VALUE"), text[0].upper() + text[1:] + ".",
                        f"Variable: {env}. Setting: {field}. {WANTS[kind]}{bounds}. Default: {default or 'none'}.",
                        "Changes at SIGHUP." if field in reloads else "")  # fmt: skip
    yield ".SH ENVIRONMENT\n" + plain("Other names of variables; the main name wins where both are set.")
    for env, field in calls(f"{table}_names.def", "CM_CONFIG_ALIAS"):
        yield from item(f"\\fB{plain(env)}\\fR", f"sets {field}")
    for env, _, only, reason in calls(f"{table}_names.def", "CM_CONFIG_REFUSED"):
        yield from item(f"\\fB{plain(env)}\\fR", f"may only be {only or 'empty'}: {reason}")


def page_files(version):
    yield from head("codemode.yaml", 5, version, "configuration files of codemode")
    yield ".SH DESCRIPTION\n" + plain(FILE_INTRO) + "\n.PP\n" + plain(RULES)
    yield ".PP\n\\fBcodemode validate\\fR checks a file, \\fBcodemode config print\\-defaults\\fR prints one with every key."
    for kind, file in (("UNIFIED", "codemode.yaml"), ("SIDECAR", "codemode-sidecar.yaml"), ("CLIENT", "codemode-client.yaml")):
        yield f".SH {plain(file.upper())}"
        yield from list_keys(kind)
    yield ".SH SEE ALSO\n\\fBcodemode\\fR(1), \\fBcodemode\\-serve\\fR(1)"


def list_keys(kind):
    for owner, path, type_, low, high, choices, default, use, fields, env, text in calls("config_files.def", "CM_FILE_KEY"):
        if owner != kind:
            continue
        wants = "one of " + choices.replace("|", ", ") if choices else WANTS[type_]
        bounds = f", {low} to {high}" if type_ in ("UINT", "SECONDS", "BYTES") else ""
        effect = f"Sets {fields.replace(',', ', ')}." if fields else EFFECTS.get(use, "")
        yield from item(f"\\fB{plain(path)}\\fR", text[0].upper() + text[1:] + "." if text else "",
                        f"{wants[0].upper()}{wants[1:]}{bounds}. Default: {default or 'none'}. {effect}" + (f" Variable: {env}." if env else ""))  # fmt: skip


def main():
    version, folder = sys.argv[1:]
    for name, page in (("codemode.1", page_main), ("codemode-serve.1", page_serve), ("codemode.yaml.5", page_files), ("rlm.1", page_rlm), ("rlm-serve.1", page_rlm_serve)):
        text = '.\\" Made by tools/manpages.py from tables/*.def.\n' + "\n".join(page(version)) + "\n"
        (Path(folder) / name).write_text(text)


if __name__ == "__main__":
    main()
