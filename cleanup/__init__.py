"""Delete for good what users deleted, rows and artifacts, and nothing else.

`plan` finds out what there is to do and changes nothing, `execute` does it. The package knows no stack and no
engine: it takes a connection to any MLflow database (`database.connection.connect`) and an artifact
destination. ``python -m cleanup`` is the whole dialogue.
"""

from __future__ import annotations

from cleanup.execution import execute
from cleanup.filters import Filters
from cleanup.planning import Plan, plan
from cleanup.report import Report

__all__ = ["Filters", "Plan", "Report", "execute", "plan"]
