"""--run-ids and --experiment-ids mean exactly these; each that may not go is named, and then nothing goes."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from cleanup import Filters
from cleanup.__main__ import main
from console import UserError
from tests.support import answers

if TYPE_CHECKING:
    from tests.support.small import Small


def answer(small: Small, *flags: str, code: int) -> dict[str, Any]:
    out = io.StringIO()
    argv = ["--backend-store-uri", small.uri, "--artifacts-destination", str(small.root), "--json", "--yes"]
    with redirect_stdout(out):
        try:
            result = main([*argv, *flags])
        except SystemExit as stopped:
            result = int(stopped.code or 0)
    assert result == code
    return answers.read("cleanup", out.getvalue()) if out.getvalue() else {}


@pytest.mark.parametrize("flag", ["--run-ids", "--experiment-ids"])
@pytest.mark.parametrize("value", ["", ",", " "])
def test_an_empty_list_of_ids_deletes_nothing(small: Small, flag: str, value: str) -> None:
    run = small.run(small.experiment("e"))
    small.delete(run)
    answer(small, f"{flag}={value}", code=2)
    assert small.rows("SELECT run_uuid FROM runs") == [run]


def test_no_ids_are_not_all_ids() -> None:
    for name in ("run_ids", "experiment_ids"):
        empty: dict[str, Any] = {name: ()}
        with pytest.raises(UserError, match="names nothing"):
            Filters(**empty)


def test_each_id_that_may_not_go_is_named_with_its_reason(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = small.experiment("e")
    old, young, undated, alive = (small.run(experiment) for _ in range(4))
    small.delete(old, young, undated)
    small.sql("UPDATE runs SET deleted_time = 1 WHERE run_uuid = :run", run=old)
    small.sql("UPDATE runs SET deleted_time = NULL WHERE run_uuid = :run", run=undated)
    unknown = "0" * 32
    ids = ",".join((old, young, undated, alive, unknown))
    before = small.files()
    report = answer(small, f"--run-ids={ids}", "--older-than=1d", code=1)
    reasons = {item["id"]: item["reason"] for item in report["skipped"]}
    assert set(reasons) == {young, undated, alive, unknown}
    assert "less than 1d ago" in reasons[young]
    assert "--include-undated" in reasons[undated]
    assert "is not deleted" in reasons[alive]
    assert "there is no run" in reasons[unknown]
    assert not any(report["deleted"].values())
    error = capsys.readouterr().err
    assert all(item in error for item in reasons)
    assert small.files() == before
    assert answer(small, f"--run-ids={old}", "--older-than=1d", code=0)["deleted"]["runs"] == 1
    assert len(small.rows("SELECT run_uuid FROM runs")) == 3


def test_a_young_experiment_is_named_as_well(small: Small) -> None:
    experiment = small.experiment("e")
    small.delete(experiment=experiment)
    report = answer(small, f"--experiment-ids={experiment}", "--older-than=1d", code=1)
    assert report["skipped"][0]["id"] == experiment
    assert small.rows("SELECT name FROM experiments WHERE name = 'e'") == ["e"]
