"""What released versions of this project left behind on Compose is taken over: up, backup, restore, cleanup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.released import released

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("name", ["4a324ba-compose-local", "4a324ba-compose-quickstart"])
def test_a_released_stack_comes_up_is_backed_up_and_takes_its_own_set_back(name: str, tmp_path: Path) -> None:
    with released(name) as old:
        old.is_taken_over(tmp_path)
