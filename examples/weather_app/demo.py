# SPDX-License-Identifier: Apache-2.0
"""Runs what an agent would write, without an agent: needs nothing but the library and an executor."""

from service import make_codemode

CODE = """
import asyncio

async def main():
    # All cities at once: the calls overlap.
    reports = await asyncio.gather(*(tools['weather'].run(location=city, days=3) for city in config['cities']))
    rows = [{'location': r['location'], 'temperature': max(r['temperatures'])} for r in reports]
    tools['database'].run(action='insert', rows=rows)
    try:
        await tools['weather'].run(location='Atlantis')
    except RuntimeError as error:
        print('as expected:', error)
    return tools['database'].run(action='select')['value']

rows = asyncio.run(main())
result = agents['analyst'].execute_task('The warmest', rows)['value']
"""


def main():
    codemode, service = make_codemode()
    with codemode, service:
        answer = codemode.with_context(user="ann").execute_result(CODE)
        print(answer.stdout, end="")
        print(answer.result if answer.success else f"failed: {answer.error}\n{answer.stderr}")
        others = codemode.with_context(user="bob").execute("result = len(tools['database'].run(action='select')['value'])")
        print("rows that another user sees:", others)
    return 0 if answer.success else 1


if __name__ == "__main__":
    raise SystemExit(main())
