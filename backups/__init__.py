"""Backup sets: taken, verified, kept, put back; and the migration that takes one first.

Knows no stack and no engine: a database URI, an artifact destination, and a place for the sets.
"""
