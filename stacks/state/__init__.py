"""A stack at its place on this machine: the deployment, its secrets, inputs and environments."""
