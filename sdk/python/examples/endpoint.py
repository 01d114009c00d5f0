# SPDX-License-Identifier: Apache-2.0
"""Any model service by its URL: a large model directs, a small one reads.

    python3 endpoint.py http://localhost:8001/v1 Qwen/Qwen3-32B Qwen/Qwen3-8B book.txt "Who is the narrator?"

A key, where the service wants one, is in LLM_API_KEY.
"""

import os
import pathlib
import sys

from rlm import RLM, RLMLogger

if len(sys.argv) != 6:
    sys.exit(__doc__)
url, model, reader, path, query = sys.argv[1:]
rlm = RLM(
    backend="vllm",  # or openai, openrouter, anthropic, ...: what differs is the default URL and the name of the key
    backend_kwargs={"base_url": url, "model_name": model, "api_key": os.environ.get("LLM_API_KEY")},
    recursive_models=[reader],
    max_depth=2,
    max_timeout=1800,
    logger=RLMLogger(log_dir="trajectories"),
    on_subcall_complete=lambda depth, name, seconds, error: print(f"  {name}: {error or f'{seconds:.1f} s'}", file=sys.stderr),
)
with rlm:
    done = rlm.completion(pathlib.Path(path), query)
print(done.response)
print(done.usage_summary.to_dict(), file=sys.stderr)
