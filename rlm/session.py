# SPDX-License-Identifier: Apache-2.0
"""The names that code of a run finds in its session, beside `context`.

The service and the Python library execute this file once in each session, then `install(...)`, and after each block
`report()`. It is an ordinary module there: code that changes it harms its own run and nobody else.

What leaves the session goes through tools that the caller of the execution answers (`caller_tools`):

    llm_query(prompt, model)          -> text           rlm_query(prompt, model)          -> text
    llm_query_batched(prompts, model) -> list of text   rlm_query_batched(prompts, model) -> list of text
    rlm_part(key, text)               -> null: one more piece of a long text
    rlm_tool(name, args, kwargs)      -> any: a function of the caller's own
    rlm_report(...)                   -> null: what report() has found

A text is itself, or {"key": k} when it was sent in pieces under that key before; keys are used once. A batch is one call.
"""
