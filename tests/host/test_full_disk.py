"""A full disk is said, with what frees it; `down` and `cleanup` work on it; what was acknowledged stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cleanup.schedule import Service
from develop.scratch.ports import free_port, free_ports
from develop.scratch.stack import StackUnderTest, wait_until
from services.postgres import SYSTEM_STATE
from tests.support.small_disk import fill, logged, mounted, there

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 60 MB."""
    with mounted(tmp_path_factory.mktemp("small") / "disk", "60m") as folder:
        yield folder


@pytest.fixture(scope="module")
def local(disk: Path) -> Iterator[StackUnderTest]:
    stack = StackUnderTest("local", "host", disk, {"port": free_port()})
    stack.up()
    yield stack
    (disk / "filler").unlink(missing_ok=True)
    stack.down("--volumes", "--yes")


@pytest.fixture(scope="module")
def acknowledged(local: StackUnderTest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return logged(local, tmp_path_factory.mktemp("artifact"))


def says_what_to_do(answer: subprocess.CompletedProcess[str], disk: Path) -> None:
    """Hold that a verb that needs room names the disk, what is free on it, and a next command."""
    assert "Traceback" not in answer.stderr
    assert str(disk) in answer.stderr
    assert "free" in answer.stderr
    assert "invoke cleanup" in answer.stderr


def test_the_server_and_status_tell_of_a_full_disk(local: StackUnderTest, disk: Path) -> None:
    filler = fill(disk)
    service = local.service("mlflow")
    assert service["health"] == "unhealthy"
    assert service["full"] == ["backend store"]
    [small] = [row for row in local.status()["disks"] if row["folder"] == str(disk)]
    assert small["full"]
    shown = local.invoke("status", expect=1).stdout
    assert f"{disk} is full" in shown
    assert "invoke cleanup --stack=local" in shown
    filler.unlink()
    assert local.service("mlflow")["health"] == "healthy"


@pytest.mark.usefixtures("acknowledged")
def test_what_needs_room_says_so_before_it_changes_anything(
    local: StackUnderTest, disk: Path, tmp_path: Path
) -> None:
    local.invoke("backup", f"--to={tmp_path}")
    uptime = local.service("mlflow")["uptime"]
    filler = fill(disk)
    for words in (
        ["up"],
        ["up", "--set", "x_frame_options=DENY"],
        ["migrate", "--yes", f"--to={tmp_path}"],
        ["restore", "--yes", f"--backup={tmp_path}/latest"],
        ["upgrade", "--yes", "--to=3.17.1", f"--backups={tmp_path}"],
        ["backup", f"--to={disk}/sets"],
    ):
        says_what_to_do(local.invoke(*words, expect=1), disk)
    filler.unlink()
    assert local.service("mlflow")["uptime"] >= uptime  # it was never away


def test_down_works_on_a_full_disk_and_all_is_there_afterwards(
    local: StackUnderTest, disk: Path, acknowledged: list[str], tmp_path: Path
) -> None:
    filler = fill(disk)
    assert "Traceback" not in local.invoke("down").stderr
    assert {service["state"] for service in local.status()["services"]} == {"stopped"}
    filler.unlink()
    local.up()
    assert all(there(local, run, tmp_path) for run in acknowledged[2:])


@pytest.mark.usefixtures("acknowledged")
def test_a_backup_to_another_disk_works_while_the_stacks_own_is_full(
    local: StackUnderTest, disk: Path, tmp_path: Path
) -> None:
    filler = fill(disk)
    local.invoke("backup", f"--to={tmp_path}")
    filler.unlink()
    assert len(list(tmp_path.glob("*/manifest.json"))) == 1


def test_cleanup_works_on_a_full_disk(
    local: StackUnderTest, disk: Path, acknowledged: list[str], tmp_path: Path
) -> None:
    local.up()
    fill(disk)
    words = ("cleanup", "--yes", f"--run-ids={acknowledged[0]}", "--json")
    answer = local.invoke(*words)
    assert "set aside for this" in answer.stderr
    assert json.loads(answer.stdout)["deleted"]["runs"] == 1
    (disk / "filler").unlink()
    local.up()
    assert (local.state / "reserve").stat().st_size > 0
    assert all(there(local, run, tmp_path) for run in acknowledged[2:])


def test_a_cleanup_at_its_time_works_on_a_full_disk(
    local: StackUnderTest,
    disk: Path,
    acknowledged: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    local.up("--set", "cleanup_schedule=0 0 1 1 *")
    reserve = local.state / "reserve"
    assert str(reserve) in (local.state / "supervisord.conf").read_text()
    log = local.state / "logs" / "cleanup.log"
    wait_until(lambda: log.exists() and "next cleanup at" in log.read_text(), log.read_text)
    data = local.state / "data"
    flags = [f"--backend-store-uri=sqlite:///{data}/mlflow.db", f"--artifacts-destination={data}/artifacts"]
    filler = fill(disk)
    assert Service("0 0 1 1 *", [*flags, f"--run-ids={acknowledged[1]}"], [reserve]).once() == 0
    assert "set aside for this" in capsys.readouterr().err
    filler.unlink()
    assert all(there(local, run, tmp_path) for run in acknowledged[2:])


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[tuple[StackUnderTest, Path]]:
    """PostgreSQL, an object store and their stack on a file system of 300 MB, and that file system."""
    with mounted(tmp_path / "disk", "300m") as folder:
        stack = StackUnderTest("quickstart", "host", folder, free_ports())
        stack.up()
        stack.down()
        # root's cluster lies elsewhere: it comes to the same disk
        data = SYSTEM_STATE / json.loads((stack.state / "stack.json").read_text())["project"]
        moved = folder / "cluster"
        shutil.move(data, moved)
        data.mkdir(mode=0o711)
        subprocess.run(["mount", "--bind", str(moved), str(data)], check=True)
        yield stack, folder
        (folder / "filler").unlink(missing_ok=True)
        stack.down("--volumes", "--yes")
        subprocess.run(["umount", "-l", str(data)], check=True)
        data.rmdir()


def test_quickstart_on_a_full_disk(quickstart: tuple[StackUnderTest, Path], tmp_path: Path) -> None:
    stack, disk = quickstart
    named = "--stack=quickstart"
    stack.up()
    runs = logged(stack, tmp_path)
    filler = fill(disk)
    server = stack.service("mlflow")
    assert (server["health"], server["full"]) == ("unhealthy", ["backend store"])
    secrets = {path: path.read_bytes() for path in (stack.state / "secrets").iterdir() if path.is_file()}
    for words in (["up"], ["secrets-rotate", "--yes"], ["migrate", "--yes", f"--to={tmp_path}"]):
        says_what_to_do(stack.invoke(*words, named, expect=1), disk)
    assert all(path.read_bytes() == content for path, content in secrets.items())
    stack.invoke("backup", named, f"--to={tmp_path / 'sets'}")
    stack.down()
    # without PostgreSQL nothing can be cleaned up: up starts it on what was set aside
    fill(disk)
    assert "set aside for this" in stack.invoke("up", named).stderr
    deleted = stack.invoke("cleanup", named, "--yes", f"--run-ids={','.join(runs[:2])}", "--json").stdout
    assert json.loads(deleted)["deleted"]["runs"] == 2
    filler.unlink()
    stack.invoke("secrets-rotate", "--yes", named)
    assert all(there(stack, run, tmp_path) for run in runs[2:])
