"""A real PostgreSQL; it lives in `develop.scratch`, where the benchmarks reach it too."""

from develop.scratch.servers import BINARIES, PASSWORD, Postgres, postgres

__all__ = ["BINARIES", "PASSWORD", "Postgres", "postgres"]
