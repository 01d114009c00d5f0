# SPDX-License-Identifier: Apache-2.0
"""One line in a million: the file goes to the session as it is, and no model ever sees it whole.

    LLM_BASE_URL=http://localhost:11434/v1 LLM_MODEL=qwen3 python3 needle.py

Needs a model service and a sidecar (WASM_MANAGER_SERVICE_URL, or http://localhost:8080).
"""

import pathlib
import random
import tempfile

from rlm import RLM

WORDS = "blah random text data content information sample".split()


def write_haystack(path: pathlib.Path, lines: int = 1_000_000) -> int:
    """Fills a file with noise; the number that is hidden in it."""
    number, place = random.randint(1_000_000, 9_999_999), random.randrange(lines)
    with open(path, "w", encoding="utf-8") as file:
        for line in range(lines):
            file.write(f"The magic number is {number}\n" if line == place else " ".join(random.choices(WORDS, k=6)) + "\n")
    return number


with tempfile.TemporaryDirectory() as folder, RLM(verbose=True, max_timeout=600) as rlm:
    haystack = pathlib.Path(folder) / "haystack.txt"
    number = write_haystack(haystack)
    done = rlm.completion(haystack, 'What is "the magic number"?')
    print(f"answered {done.response}, hidden was {number}")
    print(f"{done.execution_time:.1f} s, {done.usage_summary.total_input_tokens} tokens in")
