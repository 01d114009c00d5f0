# SPDX-License-Identifier: Apache-2.0
# The tools of this application; the rest is the guide's text.
from tools import DatabaseTool, WeatherTool

from fastapi import FastAPI
from crewai import Agent, Task, Crew
from codemode import Codemode
from codemode.grpc import start_tool_service

app = FastAPI()

# 1. Initialize Codemode
codemode = Codemode.from_config('codemode.yaml')

# 2. Register your tools
codemode.registry.register_tool('database', DatabaseTool())
codemode.registry.register_tool('weather', WeatherTool())

# 3. Start gRPC ToolService for executor calls
start_tool_service(codemode.registry, host="0.0.0.0", port=50051)

# 4. Create agent with codemode tool
orchestrator = Agent(
    role="Code Orchestrator",
    tools=[codemode.as_crewai_tool()],
    backstory="You write Python code to coordinate tools",
    verbose=True
)

@app.post("/chat")
async def chat(message: str):
    task = Task(description=message, agent=orchestrator)
    crew = Crew(agents=[orchestrator], tasks=[task])
    return {"result": str(crew.kickoff())}
