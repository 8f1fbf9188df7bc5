"""The engines that run a stack: Docker Compose, and supervisord on this host. Same verbs, same answers."""

from __future__ import annotations

from stacks.engines.base import Engine, ServiceStatus
from stacks.engines.choice import choose, running

__all__ = ["Engine", "ServiceStatus", "choose", "running"]
