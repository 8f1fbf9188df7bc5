"""What released versions of this project left behind on Compose is taken over: up, backup, restore."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import story
from tests.support.released import released
from tests.support.upgrades import all_runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("name", ["4a324ba-compose-local", "4a324ba-compose-quickstart"])
def test_a_released_stack_comes_up_is_backed_up_and_takes_its_own_set_back(name: str, tmp_path: Path) -> None:
    with released(name) as old:
        stack, flag = old.stack, f"--stack={old.stack.name}"
        stack.up()
        old.check(tmp_path)

        json.loads(stack.invoke("backup", flag, f"--to={tmp_path / 'sets'}", "--json").stdout)
        later = story.some_run(stack.url).info.run_id
        stack.invoke("restore", flag, f"--backup={old.backup}", "--yes")
        old.check(tmp_path)
        assert later not in all_runs(stack)
