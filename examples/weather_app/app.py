# SPDX-License-Identifier: Apache-2.0
"""An HTTP application whose agent writes code for the tools: ``uvicorn app:app``. Needs FastAPI and CrewAI."""

from crewai import Agent, Crew, Task
from fastapi import FastAPI

from service import make_codemode

app = FastAPI()
codemode, tool_service = make_codemode()
orchestrator = Agent(
    role="Weather desk",
    goal="Answer questions about the weather, with numbers",
    backstory="You write Python code that coordinates tools",
    tools=[codemode.as_crewai_tool()],
)


@app.post("/chat")
async def chat(message: str):
    """Has the agent answer one message."""
    task = Task(description=message, expected_output="a short answer", agent=orchestrator)
    return {"result": str(Crew(agents=[orchestrator], tasks=[task]).kickoff())}


@app.post("/run")
async def run(message: str, user: str = "ann"):
    """Runs code that the caller wrote, as this user: what the agent's tool does, without an agent."""
    answer = await codemode.with_context(user=user).execute_result_async(message)
    return {"result": answer.result, "error": answer.error, "stdout": answer.stdout}


@app.get("/health")
async def health():
    return {"executor": await codemode.health_check_async(), "tools": await codemode.ready_check_async()}
