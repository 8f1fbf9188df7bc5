"""A cleanup that is killed, raced, refused or cut off leaves every run whole or gone, and the next one ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse

from artifacts import s3 as s3_module
from cleanup import Filters, execute, plan
from cleanup.selection import Selection
from database.connection import connect
from develop.scratch import servers
from develop.scratch.ports import free_port
from tests.support.many import FILES, add_runs, broken, cleanup_in_small_batches
from tests.support.world import PURGED_RUNS, dangling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.support.cleaned import World

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


def kept_objects(world: World) -> set[str]:
    """Return the objects that a cleanup of the untouched data set leaves."""
    purged = PURGED_RUNS | {"gone-model", "gone-trace", "model-deleted", "team-deleted", "team-gone"}
    gone = {entity for name, entity in world.ids.items() if name in purged}
    return {key for key in world.objects() if not gone & set(key.split("/"))}


def test_killed_twenty_times_each_run_is_whole_or_gone_and_the_next_cleanup_ends_it(
    fresh_worlds: Callable[[], AbstractContextManager[World]],
) -> None:
    forks = multiprocessing.get_context("forkserver")  # the imports are done already: only work is killed
    forks.set_forkserver_preload(["tests.support.many", "cleanup.planning", "mlflow.store.db.utils"])
    chance = random.Random(7)
    moments: list[tuple[int, int]] = []
    span = None
    while len(moments) < 20:
        with fresh_worlds() as world:
            kept = kept_objects(world)
            ids = add_runs(world, 60, world.ids["two"])
            argv = ["--backend-store-uri", world.uri, "--artifacts-destination", world.destination]
            argv += ["--yes", "--orphan-grace=0m"]
            begun = forks.Event()
            process = forks.Process(target=cleanup_in_small_batches, args=(argv, world.env, begun))
            process.start()
            assert begun.wait(120)
            if span is None:  # the first is left in peace: how long does it take?
                started = time.monotonic()
                process.join(120)
                assert process.exitcode == 0
                span = time.monotonic() - started
            else:
                process.join(chance.random() * span)
                process.kill()
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    left = set(world.rows("SELECT run_uuid FROM runs")) & set(ids)
                    moments.append((len(left), len(world.objects()) - len(kept)))
            assert broken(world, ids) == []
            world.cleanup("--yes", "--orphan-grace=0m")
            assert not set(ids) & set(world.rows("SELECT run_uuid FROM runs"))
            assert dangling(world.engine) == {}
            assert world.objects() == kept
            assert own_indexes(world) == []
            if len(moments) % 5 == 0:
                world.assert_whole()
    print("runs and objects left to delete at each kill:", moments)
    assert any(0 < runs < len(ids) for runs, _ in moments)


def own_indexes(world: World) -> list[str]:
    table = "pg_indexes" if world.uri.startswith("postgresql") else "sqlite_master"
    name = "indexname" if table == "pg_indexes" else "name"
    return world.rows(f"SELECT {name} FROM {table} WHERE {name} LIKE 'mlflow_stacks%'")


def test_raced_by_a_restore_a_hundred_times_a_run_survives_whole_or_is_gone_whole(world: World) -> None:
    """The restore comes a little earlier each time that it came too late, and later after it won."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
    from mlflow.utils.workspace_context import WorkspaceContext

    experiment = world.ids["two"]
    ids = add_runs(world, 100, experiment)
    opened: Any = SqlAlchemyStore if world.workspaces == [None] else WorkspaceAwareSqlAlchemyStore
    store = opened(world.uri, world.destination)
    engine = connect(world.uri)
    first = plan(engine, world.destination, Filters(run_ids=(ids[0],)), count=False)
    pause, survived = 0.02, 0
    for run in ids:
        mine = dataclasses.replace(first, selection=Selection(first.schema, Filters(run_ids=(run,))))

        def restore(run: str = run, pause: float = pause) -> None:
            time.sleep(pause)
            with WorkspaceContext("default"), contextlib.suppress(MlflowException):  # gone already
                store.restore_run(run)

        thread = threading.Thread(target=restore)
        thread.start()
        execute(mine)
        thread.join()
        stage = world.rows("SELECT lifecycle_stage FROM runs WHERE run_uuid = :run", run=run)
        assert stage in ([], ["active"])
        assert len(world.objects(f"{experiment}/{run}")) == (FILES if stage else 0)
        survived += bool(stage)
        pause *= 1.1 if stage else 0.9
    print(f"{survived} of {len(ids)} survived")
    assert 0 < survived < len(ids)
    assert broken(world, ids) == []
    assert dangling(world.engine) == {}
    engine.dispose()
    store._dispose_engine()


def test_two_cleanups_at_once_do_not_meet(world: World) -> None:
    ids = add_runs(world, 200, world.ids["two"])
    both = [start(world, "--only=runs", "--wait=120") for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert not set(ids) & set(world.rows("SELECT run_uuid FROM runs"))
    world.assert_whole()


def test_a_cleanup_that_finds_the_lock_taken_says_by_whom(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from database.dialect import maintenance_lock

    before = world.runs()
    with maintenance_lock(connect(world.uri), "backup"):
        world.cleanup("--yes", code=1)
    assert "held by backup" in capsys.readouterr().err
    assert world.runs() == before


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
        process = start(world, "--only=runs", "--claim")  # what was there before lies in S3
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
            world.cleanup("--yes", "--only=runs", "--claim")
            assert not set(ids) & set(world.rows("SELECT run_uuid FROM runs"))
            assert dangling(world.engine) == {}
        finally:
            subprocess.run(
                [*control, "stop"], check=False, cwd=own.data.parent, capture_output=True, **become
            )


XML: Any = {"content-type": "application/xml"}


class Weather:
    """Disturbs requests to S3 before they are sent; `rule` gives what happens to one (None: it is sent)."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rule: Callable[[Any, int], Any], timeout: float = 60.0
    ) -> None:
        real = s3_module.s3_client
        self.requests = 0
        guard = threading.Lock()

        def before_send(request: Any, **_: Any) -> Any:
            with guard:
                self.requests += 1
                return rule(request, self.requests)

        def disturbed(**options: Any) -> Any:
            client = real(**{**options, "timeout": timeout})
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


class Denies(BaseHTTPRequestHandler):
    """An S3 that knows nobody."""

    def _deny(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>AccessDenied</Message></Error>"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _deny  # noqa: N815 (the names that http.server looks for)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def s3_in_trouble(trouble: str) -> Iterator[str]:
    """Yield the endpoint of an S3 where nobody listens, that never answers, or that denies everything."""
    if trouble == "refuses":
        yield f"http://127.0.0.1:{free_port()}"
    elif trouble == "times out":
        with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
    else:
        with ThreadingHTTPServer(("127.0.0.1", 0), Denies) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


@pytest.mark.parametrize("trouble", ["refuses", "times out", "denies"])
def test_while_s3_does_not_work_nothing_is_begun(
    s3_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    before, keys = s3_world.runs(), s3_world.objects()
    with monkeypatch.context() as patch, s3_in_trouble(trouble) as endpoint:
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", endpoint)
        Weather(patch, lambda _, __: None, timeout=0.2)
        assert s3_world.cleanup("--yes", code=1) == {}
    assert "error: the artifact destination cannot be read: " in capsys.readouterr().err
    assert s3_world.runs() == before
    assert s3_world.objects() == keys


def test_where_s3_stops_working_no_row_with_artifacts_is_deleted(
    s3_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keys = s3_world.runs(), s3_world.objects()
    with monkeypatch.context() as patch:
        Weather(patch, lambda _, number: answer(403, "AccessDenied") if number > 3 else None)
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
