# SPDX-License-Identifier: Apache-2.0
"""The application's tools. They run here, with the application's rights; the code that calls them runs in the sandbox."""

import asyncio
import sqlite3
import threading
from typing import Dict, List, Literal, Optional

from codemode import ContextAwareTool

_CLIMATE = {"NYC": (22.0, 60), "Oslo": (9.0, 71), "Cairo": (34.5, 20), "Lima": (18.5, 82)}


class WeatherTool:
    """Weather of a city, now and for the coming days."""

    async def run(self, location: str, days: int = 1, units: Literal["C", "F"] = "C") -> dict:
        """Looks the weather up.

        Args:
            location: NYC, Oslo, Cairo or Lima
            days: from 1 to 7
            units: of the temperatures
        """
        if location not in _CLIMATE:
            raise ValueError(f"no weather for {location}: there is {', '.join(_CLIMATE)}")
        if not 1 <= days <= 7:
            raise ValueError("days must be from 1 to 7")
        await asyncio.sleep(0.05)  # where a real one would ask a service
        celsius, humidity = _CLIMATE[location]
        forecast = [celsius + (day * 7 + len(location)) % 5 for day in range(days)]
        return {
            "location": location,
            "units": units,
            "humidity": humidity,
            "temperatures": [t if units == "C" else round(t * 9 / 5 + 32, 1) for t in forecast],
        }


class DatabaseTool(ContextAwareTool):
    """Measurements of the caller: each user sees their own only."""

    def __init__(self, path: str = ":memory:") -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.execute("CREATE TABLE IF NOT EXISTS weather (user TEXT, location TEXT, temperature REAL)")

    def run_with_context(
        self, context, action: Literal["insert", "select"], rows: Optional[List[Dict[str, object]]] = None, location: str = ""
    ):
        """Writes rows, or reads them back.

        Args:
            action: insert or select
            rows: to insert: [{"location": ..., "temperature": ...}]
            location: to select: only this one; all without it
        """
        user = context.require("user")
        with self._lock, self._db:
            if action == "insert":
                values = [(user, row["location"], row["temperature"]) for row in rows or []]
                self._db.executemany("INSERT INTO weather VALUES (?, ?, ?)", values)
                return {"inserted": len(values)}
            found = self._db.execute(
                "SELECT location, temperature FROM weather WHERE user = ? AND (? = '' OR location = ?) ORDER BY rowid",
                (user, location, location),
            )
            return [{"location": place, "temperature": temperature} for place, temperature in found]


class Analyst:
    """An agent in CrewAI's shape that needs no model: it says what the numbers say."""

    role = "Analyst"
    goal = "Says which place is the warmest."

    def execute_task(self, task, context=None):
        rows = context or []
        warmest = max(rows, key=lambda row: row["temperature"])
        return f"{task}: {warmest['location']} with {warmest['temperature']:g}"
