"""The folders of this machine that a container of the MLflow image is given, under the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

from console import UserError
from stacks.engines import mounts


def test_a_folder_keeps_its_path() -> None:
    assert mounts.mount(Path("/home/me/sets")) == "/home/me/sets:/home/me/sets"
    assert mounts.mount(Path("/opt/mlflow-stacks/backups")).endswith(":/opt/mlflow-stacks/backups")


@pytest.mark.parametrize("folder", ["/", "/opt", "/usr", "/etc", "/var", "/var/lib/mlflow", "/run"])
def test_a_folder_that_would_hide_one_of_the_image_is_refused(folder: str) -> None:
    with pytest.raises(UserError, match="it has a folder of that name itself"):
        mounts.mount(Path(folder))


def test_a_name_that_compose_cannot_read_is_refused() -> None:
    with pytest.raises(UserError, match="there is a colon in its name"):
        mounts.mount(Path("/home/me/2026:11"))


@pytest.mark.parametrize(("answer", "ids"), [('["name=rootless"]', "0:0"), ('["name=seccomp"]', "1000:1001")])
def test_this_user_is_root_in_a_container_of_an_engine_without_root(
    answer: str, ids: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "printed", lambda _command: answer)
    monkeypatch.setattr("os.getuid", lambda: 1000)
    monkeypatch.setattr("os.getgid", lambda: 1001)
    assert mounts.this_user() == ids
