"""Programs that a stack starts beside its tracking server, and one-shot steps before and after it."""
