#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes C of a .proto file, by way of a view of it that has the same bytes on the wire and suits C better.

    wire_view.py FILE.proto PACKAGE OUTPUT-FOLDER

A `string` of protobuf-c ends at its first NUL and a Struct becomes a tree: in the view both are `bytes`, which come with
their length, and whoever reads them checks the text and walks the Struct as it stands. Services and imports go, because
methods are known by their paths; `optional` becomes the one-member `oneof` that it stands for, and a map the repeated
pair, since this compiler knows neither. The package is another one, so that no name meets the compiled original.
"""

import pathlib
import re
import subprocess
import sys


def view(text, package):
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.M)
    text = re.sub(r"^service \w+ \{.*?^\}\n", "", text, flags=re.M | re.S)
    text = re.sub(r"^package [^;]*;", f"package {package};", text, flags=re.M)
    text = re.sub(r"\boptional (\w+) (\w+) = (\d+);", r"oneof _\2 { \1 \2 = \3; }", text)
    if "map<string, double>" in text:
        text = text.replace("map<string, double>", "repeated Pair") + "\nmessage Pair { string key = 1; double value = 2; }\n"
    return re.sub(r"\bstring (\w+ = )", r"bytes \1", text).replace("google.protobuf.Struct", "bytes")


def main():
    source, package, folder = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    target = folder / (source.stem + ".proto")
    target.write_text(view(source.read_text(encoding="utf-8"), package), encoding="utf-8")
    subprocess.run(["protoc-c", f"--proto_path={folder}", f"--c_out={folder}", str(target)], check=True)


main()
