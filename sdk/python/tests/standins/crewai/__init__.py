# SPDX-License-Identifier: Apache-2.0
"""Stands in for CrewAI in the tests of the examples: no model, the environment says what the agent writes."""

import os


class Agent:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Task:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Crew:
    def __init__(self, agents, tasks):
        self.agents, self.tasks = agents, tasks

    def kickoff(self, inputs=None):
        tool = next(tool for tool in self.tasks[-1].agent.tools if tool.name == "codemode")
        assert "weather" in tool.description
        return tool.run(code=os.environ["STAND_IN_CODE"])
