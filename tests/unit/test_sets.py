"""Where sets are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backups.sets import list_sets
from console import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_no_place_without_sets(tmp_path: Path) -> None:
    assert list_sets(tmp_path / "not there yet") == ([], [])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder"):
        list_sets(tmp_path / "file")
