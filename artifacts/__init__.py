"""Artifact stores: list and delete objects below an artifact destination, whatever holds it.

`open_store` takes an artifact destination (a local directory, ``s3://bucket/prefix`` or any URI that MLflow
has an artifact repository for) and gives back a `Store`. Keys are relative to that destination, with ``/``
between their parts and without a leading one. Nothing here knows a stack, an engine or a database.
"""

from __future__ import annotations

from artifacts.base import Store, StoredObject, StoreError, UnreadableError
from artifacts.opening import open_store

__all__ = ["Store", "StoreError", "StoredObject", "UnreadableError", "open_store"]
