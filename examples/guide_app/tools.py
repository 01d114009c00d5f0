# SPDX-License-Identifier: Apache-2.0
"""Two tools in the shape of CrewAI's, without a need for it."""

import threading


class WeatherTool:
    """Current weather of a city."""

    def run(self, location: str) -> dict:
        """Looks the weather up.

        Args:
            location: city, as in "NYC"
        """
        temperature = {"NYC": 72, "Oslo": 41}.get(location, 60)
        return {"location": location, "temperature": temperature, "unit": "F"}


class DatabaseTool:
    """Keeps rows in tables."""

    def __init__(self):
        self._lock, self._tables = threading.Lock(), {}

    def run(self, table: str, row: dict) -> dict:
        """Appends a row to a table and answers its id.

        Args:
            table: name of the table; it is made if need be
            row: the values by their columns
        """
        with self._lock:
            rows = self._tables.setdefault(table, [])
            rows.append(row)
            return {"table": table, "id": len(rows)}
