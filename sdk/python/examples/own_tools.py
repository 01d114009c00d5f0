# SPDX-License-Identifier: Apache-2.0
"""Functions of this program as tools of a run: they are called here, with this program's rights; the model's code runs in the sandbox.

    OPENAI_API_KEY=... python3 own_tools.py
"""

import sqlite3

from rlm import RLM, RLMError

orders = sqlite3.connect(":memory:", check_same_thread=False)  # tools are called in threads
orders.execute("CREATE TABLE orders (customer TEXT, amount REAL)")
orders.executemany("INSERT INTO orders VALUES (?, ?)", [("Ada", 12.5), ("Grace", 40.0), ("Ada", 7.5)])


def orders_of(customer: str) -> list:
    """The amounts of all orders of a customer. Reads, and cannot do anything else."""
    return [amount for (amount,) in orders.execute("SELECT amount FROM orders WHERE customer = ?", (customer,))]


tools = {
    "orders_of": orders_of,
    "vat": {"tool": 0.2, "description": "The rate of the tax; amounts are without it."},
}

with RLM(custom_tools=tools, max_budget=0.50, max_timeout=300) as rlm:
    try:
        print(rlm.completion(["Ada", "Grace", "Linus"], "What does each of these customers owe, with tax?"))
    except RLMError as error:
        print(f"no answer ({error}); the last words were: {error.partial_answer}")
