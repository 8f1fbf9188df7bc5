"""Loading MLflow sooner."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def loading() -> Iterator[None]:
    """Import modules inside the block without garbage collection, which takes a quarter of the time.

    They stay as long as the process does, so no collection need ever look at them either, not even the one at its end
    (``gc.freeze``, Python's library reference).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
