"""A cleanup that is killed, raced, refused or cut off leaves every run whole or gone, and the next one ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

from artifacts import s3 as s3_module
from cleanup import Filters, execute, plan
from cleanup.selection import Selection
from database.connection import connect
from tests.host.cleanup.many import FILES, add_runs, broken
from tests.host.cleanup.world import PURGED_RUNS, dangling, engine_for
from tests.host.database import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.host.cleanup.conftest import World

ROOT = Path(__file__).parents[3]


def start(world: World, *flags: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "cleanup", "--yes", "--backend-store-uri", world.uri]
    argv += ["--artifacts-destination", world.destination, *flags]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def mixed_world(s3_world: World, tmp_path: Path) -> World:
    """Return the data set in PostgreSQL with a local destination, where many runs are made quickly."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return dataclasses.replace(s3_world, destination=str(folder))


@pytest.mark.parametrize("kind", ["local_world", "mixed_world"])
def test_killed_ten_times_each_run_is_whole_or_gone_and_the_next_cleanup_ends_it(
    kind: str, request: pytest.FixtureRequest
) -> None:
    world: World = request.getfixturevalue(kind)
    ids: list[str] = []
    experiment = world.ids["two"]
    live = add_runs(world, 20, experiment, stage="active")
    chance = random.Random(7)
    killed = 0
    while killed < 10:
        if len(set(ids) & set(world.rows("SELECT run_uuid FROM runs"))) < 600:
            ids += add_runs(world, 600, experiment)
        process = start(world, "--only=runs")
        time.sleep(0.6 + chance.random())
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert broken(world, ids + live) == []
    world.cleanup("--yes", "--only=runs")
    left = set(world.rows("SELECT run_uuid FROM runs"))
    assert not left & set(ids)
    assert left >= set(live)
    assert not {part for key in world.objects() for part in key.split("/")} & set(ids)
    assert dangling(world.engine) == {}
    assert (
        world.rows(
            "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'mlflow_stacks%'"
            if kind == "mixed_world"
            else "SELECT name FROM sqlite_master WHERE name LIKE 'mlflow_stacks%'"
        )
        == []
    )


@pytest.mark.parametrize("kind", ["local_world", "mixed_world"])
def test_raced_by_a_restore_fifty_times_a_run_survives_whole_or_is_gone_whole(
    kind: str, request: pytest.FixtureRequest
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    world: World = request.getfixturevalue(kind)
    ids = add_runs(world, 50, world.ids["two"])
    workspaces = world.workspaces != [None]
    store: Any = None
    opened: Any = SqlAlchemyStore
    if not workspaces:
        store = opened(world.uri, world.destination)
    restorer = engine_for(world.uri)
    engine = connect(world.uri)
    first = plan(engine, world.destination, Filters(run_ids=(ids[0],)), count=False)
    chance = random.Random(3)
    survived = 0
    for run in ids:
        mine = dataclasses.replace(first, selection=Selection(first.schema, Filters(run_ids=(run,))))

        def restore(run: str = run, pause: float = chance.random() * 0.04) -> None:
            time.sleep(pause)
            if store is not None:
                with contextlib.suppress(MlflowException):  # gone already
                    store.restore_run(run)
                return
            from sqlalchemy import text

            with restorer.begin() as connection:  # what SqlAlchemyStore.restore_run does
                connection.execute(
                    text(
                        "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = :run"
                    ),
                    {"run": run},
                )

        thread = threading.Thread(target=restore)
        thread.start()
        execute(mine)
        thread.join()
        stage = world.rows("SELECT lifecycle_stage FROM runs WHERE run_uuid = :run", run=run)
        files = list(Path(world.destination).glob(f"*/{run}/artifacts/*"))
        assert stage in ([], ["active"])
        assert len(files) == (FILES if stage else 0)
        survived += bool(stage)
    assert broken(world, ids) == []
    assert dangling(world.engine) == {}


def test_two_cleanups_at_once_do_not_meet(mixed_world: World) -> None:
    ids = add_runs(mixed_world, 1500, mixed_world.ids["two"])
    both = [start(mixed_world, "--only=runs", "--wait=120") for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert not set(ids) & set(mixed_world.rows("SELECT run_uuid FROM runs"))
    assert dangling(mixed_world.engine) == {}


def test_a_cleanup_that_finds_the_lock_taken_says_by_whom(
    mixed_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from database.lock import maintenance_lock

    before = mixed_world.runs()
    with maintenance_lock(connect(mixed_world.uri), "backup"):
        mixed_world.cleanup("--yes", code=1)
    assert "held by backup" in capsys.readouterr().err
    assert mixed_world.runs() == before


def test_a_database_that_restarts_in_the_middle_is_a_message_and_the_next_cleanup_ends_it(
    mixed_world: World,
) -> None:
    name = mixed_world.uri.rpartition("/")[2]
    with servers.postgres() as own:
        source = mixed_world.uri
        script = subprocess.run(
            [servers.BINARIES / "pg_dump", "-d", source.replace("postgresql+psycopg2", "postgresql")],
            capture_output=True,
            check=True,
        ).stdout
        world = dataclasses.replace(mixed_world, uri=own.create(name, script))
        ids = add_runs(world, 3000, world.ids["two"])
        process = start(world, "--only=runs")
        deadline = time.monotonic() + 60
        while len(set(ids) & set(world.rows("SELECT run_uuid FROM runs"))) == len(ids):
            assert time.monotonic() < deadline, "nothing is being deleted"
            time.sleep(0.05)
        become: dict[str, Any] = (
            {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        control = [str(servers.BINARIES / "pg_ctl"), "-D", str(own.data), "-w", "-m", "immediate"]
        log = own.data.parent / "log"
        try:
            with log.open("ab") as output:
                subprocess.run(
                    [*control, "restart"],
                    check=True,
                    cwd=own.data.parent,
                    stdout=output,
                    stderr=output,
                    **become,
                )
            _, error = process.communicate(timeout=120)
            assert "Traceback" not in error
            assert process.returncode in {0, 1}
            if process.returncode:
                assert "error: " in error
            assert broken(world, ids) == []
            world.cleanup("--yes", "--only=runs")
            assert not set(ids) & set(world.rows("SELECT run_uuid FROM runs"))
            assert dangling(world.engine) == {}
        finally:
            subprocess.run(
                [*control, "stop"], check=False, cwd=own.data.parent, capture_output=True, **become
            )


XML: Any = {"content-type": "application/xml"}


class Weather:
    """Disturbs requests to S3 before they are sent; `rule` gives what happens to one (None: it is sent)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rule: Callable[[Any, int], Any]) -> None:
        real = s3_module.s3_client
        self.requests = 0
        guard = threading.Lock()

        def before_send(request: Any, **_: Any) -> Any:
            with guard:
                self.requests += 1
                return rule(request, self.requests)

        def disturbed(**options: Any) -> Any:
            client = real(**options)
            client.meta.events.register("before-send.s3", before_send)
            return client

        monkeypatch.setattr(s3_module, "s3_client", disturbed)
        monkeypatch.setattr("time.sleep", lambda _: None)


class Body:
    """What botocore reads an answer from."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def stream(self, **_: Any) -> Any:
        yield self._text


def answer(status: int, code: str) -> AWSResponse:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return AWSResponse("http://test", status, XML, Body(body))


def body_of(request: Any) -> str:
    data = request.body
    if hasattr(data, "read"):
        position = data.tell()
        text = data.read()
        data.seek(position)
        data = text
    return data.decode() if isinstance(data, bytes) else str(data or "")


def test_an_s3_that_answers_503_now_and_then_only_costs_time(
    s3_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Weather(monkeypatch, lambda _, number: answer(503, "SlowDown") if number % 3 == 0 else None)
    before = s3_world.runs()
    s3_world.cleanup("--yes")
    assert s3_world.runs() == before - PURGED_RUNS - {"team-deleted", "team-gone"}
    monkeypatch.undo()
    s3_world.assert_whole()
    s3_world.assert_owned()


@pytest.mark.parametrize("trouble", ["refuses", "times out", "denies"])
def test_while_s3_does_not_work_no_row_with_artifacts_is_deleted(
    s3_world: World, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def rule(request: Any, _: int) -> Any:
        if trouble == "refuses":
            raise EndpointConnectionError(endpoint_url=request.url)
        if trouble == "times out":
            raise ConnectTimeoutError(endpoint_url=request.url)
        return answer(403, "AccessDenied")

    before, keys = s3_world.runs(), s3_world.objects()
    with monkeypatch.context() as patch:
        Weather(patch, rule)
        result = s3_world.cleanup("--yes", code=1)
    assert result["deleted"]["runs"] == 0
    assert any("cannot be deleted" in item["reason"] for item in result["skipped"])
    assert s3_world.runs() == before
    assert s3_world.objects() == keys
    s3_world.cleanup("--yes")
    assert s3_world.runs() == before - PURGED_RUNS - {"team-deleted", "team-gone"}
    s3_world.assert_whole()


def test_a_denied_prefix_keeps_its_run_and_the_rest_goes_on(
    s3_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = s3_world.ids["plain-deleted"]
    before = s3_world.runs()
    with monkeypatch.context() as patch:
        Weather(patch, lambda request, _: answer(403, "AccessDenied") if run in request.url else None)
        result = s3_world.cleanup("--yes", "--only=runs", code=1)
    assert {item["id"]: item["reason"] for item in result["skipped"]}[run].startswith(
        "its artifacts cannot be deleted"
    )
    # this asked for runs alone, and takes deleted runs wherever they are
    assert s3_world.runs() == before - (PURGED_RUNS - {"plain-deleted"}) - {"team-deleted", "team-gone"}
    s3_world.assert_whole()


def test_an_error_inside_an_answer_of_200_counts_as_an_error(
    s3_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = s3_world.ids["plain-deleted"]

    def rule(request: Any, _: int) -> Any:
        text = body_of(request)
        if "?delete" not in request.url or run not in text:
            return None
        key = next(part.split("</Key>")[0] for part in text.split("<Key>")[1:] if run in part)
        failed = f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
        body = f"<DeleteResult>{failed}</DeleteResult>"
        return AWSResponse(request.url, 200, XML, Body(body))

    with monkeypatch.context() as patch:
        Weather(patch, rule)
        result = s3_world.cleanup("--yes", f"--run-ids={run}", code=1)
    assert "AccessDenied: locked" in result["skipped"][0]["reason"]
    assert "plain-deleted" in s3_world.runs()
    s3_world.cleanup("--yes", f"--run-ids={run}")
    assert "plain-deleted" not in s3_world.runs()
