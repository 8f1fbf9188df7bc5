"""What released versions of this project left behind on the host engine is taken over: up, backup, restore, cleanup.

What of it is upgraded stands in `test_upgrade.py`, beside the environment that takes a minute to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.released import released

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["4a324ba-host-local", "4a324ba-host-quickstart"])
def test_a_released_stack_comes_up_is_backed_up_and_takes_its_own_set_back(name: str, tmp_path: Path) -> None:
    with released(name) as old:
        old.is_taken_over(tmp_path)
