"""A small cleanup asks a database and a store that are far away a few things, however much there is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from artifacts import open_store
from cleanup.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from develop.scratch.servers import Postgres

FEW, MANY = 2, 40  # one batch, the second of more folders than are listed one by one
# 16 of the statements are SQLAlchemy's to read the tables, 24 delete; a session costs up to three more round trips
LIMITS = Counter(statements=72, sessions=17, requests=6)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count statements, sessions taken from a pool, and requests to S3."""
    from botocore.httpsession import URLLib3Session

    counts: Counter[str] = Counter()
    send = URLLib3Session.send

    def statement(*_: object) -> None:
        counts["statements"] += 1

    def session(*_: object) -> None:
        counts["sessions"] += 1

    def request(self: URLLib3Session, request: Any) -> Any:
        counts["requests"] += 1
        return send(self, request)

    monkeypatch.setattr(URLLib3Session, "send", request)
    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Pool, "checkout", session)
    yield counts
    event.remove(Engine, "before_cursor_execute", statement)
    event.remove(Pool, "checkout", session)


def test_a_small_cleanup_asks_few_questions(
    postgres: Postgres, empty_postgresql: str, s3: dict[str, str], tmp_path: Path, asked: Counter[str]
) -> None:
    import mlflow.store.tracking.sqlalchemy_store as module

    assert s3
    postgres.sql(f'CREATE DATABASE far_away TEMPLATE "{empty_postgresql}"')
    uri, destination = postgres.uri("far_away"), "s3://bucket/far-away"
    tracking: Any = module
    mlflow = tracking.SqlAlchemyStore(uri, destination)
    experiment, store = mlflow.create_experiment("e", f"{destination}/1"), open_store(destination)
    file = tmp_path / "file"
    file.write_text("x")

    def log(count: int, *, deleted: bool = True) -> None:
        for _ in range(count):
            info = mlflow.create_run(experiment, "u", 1, [], "run").info
            store.put(file, f"{info.artifact_uri.removeprefix(f'{destination}/')}/file", None)
            if deleted:
                mlflow.delete_run(info.run_id)

    def clean(*flags: str) -> Counter[str]:
        before = asked.copy()
        argv = ["--yes", "--backend-store-uri", uri, "--artifacts-destination", destination, *flags]
        assert main(argv) == 0
        return asked - before

    log(1, deleted=False)
    clean("--claim")
    for runs in FEW, MANY:
        log(runs)
        counts = clean()
        assert counts <= LIMITS, counts
    mlflow._dispose_engine()
    assert len(list(store.list())) == 2  # the live run's, and the mark
