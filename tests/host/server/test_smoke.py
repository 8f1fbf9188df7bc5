"""The smoke test passes against a server that works, and names the step that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from console import UserError
from services.smoke import smoke_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.running import Running


def test_a_server_that_works_passes_and_keeps_nothing_active(start: Callable[..., Running]) -> None:
    from mlflow import MlflowClient

    server = start().wait_ready()
    client = MlflowClient(server.url)
    assert smoke_test(server.url)["old_run"] is None
    old = client.create_run("0").info.run_id
    assert smoke_test(server.url)["old_run"] == old
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    with pytest.raises(UserError, match="cannot read an old run"):
        smoke_test(server.url, "0123456789abcdef0123456789abcdef")


def test_a_server_that_is_not_there_fails_at_the_first_step() -> None:
    with pytest.raises(UserError, match=r"the smoke test of http://127\.0\.0\.1:1 failed"):
        smoke_test("http://127.0.0.1:1", "some-run")
