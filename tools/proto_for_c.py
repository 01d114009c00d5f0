#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rewrite .proto files for protobuf-c: the same bytes on the wire, in a shape that suits C better.

    string              becomes bytes: C strings end at a NUL, which may be part of any text here
    google's Struct     becomes bytes in a oneof of its own, so that absent and empty differ; wire/structs.h reads it
    optional            becomes the oneof of one member that it stands for: has_NAME
    map<string, double> becomes the repeated pair that it is on the wire
    services, imports   go: methods are known by their paths

opaque.def lists the bytes fields that are not text, so that wire/proto.c knows which must be UTF-8.

usage: proto_for_c.py OUTPUT-FOLDER FILE.proto...
"""

import re
import sys
from pathlib import Path

FIELD = re.compile(r"^\s*(repeated |optional |)([\w.]+) (\w+) = (\d+);$")
STRUCT = "google.protobuf.Struct"
PAIR = "message Pair {\n  bytes key = 1;\n  double value = 2;\n}\n"


def rewrite_field(label, kind, name, number):
    """The field for C, and whether it is bytes without being text."""
    presence = label == "optional " or (kind == STRUCT and not label)
    plain = f"{'bytes' if kind in ('string', STRUCT) else kind} {name} = {number};"
    if presence:
        return f"  oneof has_{name} {{ {plain} }}", kind in ("bytes", STRUCT)
    return f"  {label}{plain}", kind in ("bytes", STRUCT)


def rewrite(text, opaque):
    text = re.sub(r"[ \t]*//.*", "", text)
    text = re.sub(r"^service \w+ \{.*?^\}\n", "", text, flags=re.M | re.S)
    text = re.sub(r"^import .*\n", "", text, flags=re.M)
    pairs = "map<string, double>" in text
    text = text.replace("map<string, double>", "repeated Pair")
    package = re.search(r"^package ([\w.]+);", text, re.M).group(1)
    message, lines = None, []
    for line in text.splitlines():
        begins = re.match(r"message (\w+) \{", line)
        message = begins.group(1) if begins else message
        field = FIELD.match(line)
        if field and message and not re.match(r"\s*(syntax|package|option)\b", line):
            line, is_opaque = rewrite_field(*field.groups())
            if is_opaque:
                opaque.append(f'CM_OPAQUE("{package}.{message}", {field[4]})')
        elif re.match(r"\s+(message|enum|map|reserved|extensions|group)\b", line):
            sys.exit(f"{message}: tools/proto_for_c.py does not know how to write '{line.strip()}' for C")
        if line.strip():
            lines.append(line)
    return "\n".join(lines) + "\n" + (PAIR if pairs else "")


def main():
    folder, opaque = Path(sys.argv[1]), []
    for name in sys.argv[2:]:
        folder.joinpath(Path(name).name).write_text(rewrite(Path(name).read_text(), opaque))
    folder.joinpath("opaque.def").write_text("\n".join(opaque) + "\n")


if __name__ == "__main__":
    main()
