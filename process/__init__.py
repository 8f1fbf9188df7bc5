"""What every process of ours stands on: serving, ASGI's types, loading, and the tether to a parent."""
