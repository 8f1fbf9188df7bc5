"""What only those type who work on this project: lint and tests."""
