"""The stack under test; it lives in `develop.scratch`, where the benchmarks reach it too."""

from develop.scratch.ports import free_port, free_ports
from develop.scratch.stack import PATIENCE, StackUnderTest, wait_until

__all__ = ["PATIENCE", "StackUnderTest", "free_port", "free_ports", "wait_until"]
