#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Turn files into C: embed.py OUT.c PREFIX FILE...; each becomes `const char PREFIX_NAME[]` with its size beside it.

NAME is the file's name with everything but letters and digits as "_", without a leading one.
"""

import re
import sys
from pathlib import Path


def rows(data):
    for at in range(0, len(data), 24):
        yield "    " + "".join(f"{byte}," for byte in data[at : at + 24])


def main():
    out, prefix, *files = sys.argv[1:]
    text = ["/* Made by tools/embed.py. */", "#include <stddef.h>"]
    for path in map(Path, files):
        name = prefix + "_" + re.sub(r"[^A-Za-z0-9]", "_", path.name).strip("_").lower()
        data = path.read_bytes()
        text += [f"extern const unsigned char {name}[];", f"extern const size_t {name}_size;"]
        text += [f"const unsigned char {name}[] = {{", *rows(data + b"\0"), "};", f"const size_t {name}_size = {len(data)};"]
    Path(out).write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
