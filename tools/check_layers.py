#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Check the direction of every #include under src/ against tools/layers.txt."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def read_layers():
    layers, forbidden = {}, {}
    for line in (ROOT / "tools/layers.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            layers[words[0]] = int(words[1])
            forbidden[words[0]] = {word.removeprefix("!") for word in words[2:]}
    return layers, forbidden


def room_of(path, rooms):
    """The longest room name that is a folder above the path, or None."""
    found = [room for room in rooms if path.startswith(room + "/")]
    return max(found, key=len, default=None)


def complaint(room, target, layers, forbidden):
    if target == room:
        return None
    if layers[target] >= layers[room]:
        return f"{room} (layer {layers[room]}) must not include {target} (layer {layers[target]})"
    if target in forbidden[room]:
        return f"{room} must not know {target}"
    return None


def check_file(path, layers, forbidden):
    name = path.relative_to(ROOT / "src").as_posix()
    room = room_of(name, layers)
    if room is None:
        yield f"src/{name}: its room is not in tools/layers.txt"
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        target = match and room_of(match.group(1), layers)
        reason = target and complaint(room, target, layers, forbidden)
        if reason:
            yield f"src/{name}:{number}: {reason}"


def main():
    layers, forbidden = read_layers()
    files = sorted(path for path in (ROOT / "src").rglob("*.[ch]"))
    findings = [finding for path in files for finding in check_file(path, layers, forbidden)]
    print("\n".join(findings + [f"include layers: {len(files)} files, {len(findings)} findings"]))
    return 1 if findings or not files else 0


if __name__ == "__main__":
    sys.exit(main())
