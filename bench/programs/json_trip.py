# SPDX-License-Identifier: Apache-2.0
"""json: text to objects and back."""

import json


def run():
    rows = [
        {"id": number, "name": f"row {number}", "tags": ["a", "b", str(number % 7)], "score": number / 3, "on": number % 2 == 0}
        for number in range(400)
    ]
    text = ""
    for _ in range(180):
        text = json.dumps({"rows": rows, "text": "g\u00fcnstig \u2603" * 20})
        rows = json.loads(text)["rows"]
    pretty = json.dumps(rows, indent=1, sort_keys=True)
    return len(text), len(pretty), rows[-1]["score"]
