"""The requests of the programs that a stack starts; the last one is a step of an upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.__main__ import Standalone
from gateway.sync import Sync
from services.postgres import Postgres
from services.role import Role
from services.smoke import Smoke

if TYPE_CHECKING:
    from verbs import Request

PROGRAMS: list[type[Request]] = [Postgres, Role, Standalone, Sync, Smoke]
