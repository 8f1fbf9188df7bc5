"""What can be done with a stack: one module a group of tasks, free of Invoke."""
