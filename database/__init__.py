"""The backend store: its connection, lock, schema revision and migration, and the two dialects.

Every function takes a database URI (PostgreSQL or SQLite); none knows a stack or an engine. The modules
import SQLAlchemy, so tasks import them lazily; importing the package alone costs nothing.
"""
