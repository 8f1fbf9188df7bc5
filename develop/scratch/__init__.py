"""Throw-away servers and stacks on this machine, for tests and benchmarks; each ends with its block."""
