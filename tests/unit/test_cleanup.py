"""The pure parts of cleanup: ages, filters, locations, schedules."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table

from cleanup.filters import Filters, parse_age
from cleanup.locations import Destination, StrangeLocation
from cleanup.schedule import next_time
from cleanup.schema import Schema
from cleanup.usage import Usage, as_html, as_json
from console import UserError
from database.sqlite import SQLiteLanguage

RUN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43200), ("30d", 2592000), ("0m", 0)])
def test_an_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "30 days", "1d2h", "1w", "٣d x"])
def test_anything_else_is_no_age(text: str) -> None:
    with pytest.raises(UserError, match="cannot read the age"):
        parse_age(text)


def test_ids_ask_for_nothing_but_what_they_name() -> None:
    assert Filters().kinds == {"runs", "experiments", "models", "orphans"}
    assert Filters(run_ids=(RUN,)).kinds == {"runs"}
    assert Filters(experiment_ids=("1",)).kinds == {"experiments"}


@pytest.mark.parametrize(
    ("destination", "uri"),
    [
        ("/data/artifacts", f"/data/artifacts/1/{RUN}/artifacts"),
        ("/data/artifacts/", f"file:///data/artifacts/1/{RUN}/artifacts"),
        ("file:///data/artifacts", f"/data/artifacts/1/{RUN}/artifacts"),
        ("/data/artifacts", f"mlflow-artifacts:/1/{RUN}/artifacts"),
        ("s3://bucket", f"mlflow-artifacts://host:5000/1/{RUN}/artifacts"),
        ("s3://bucket/deep", f"http://host:5000/api/2.0/mlflow-artifacts/artifacts/1/{RUN}/artifacts"),
        ("s3://bucket/deep", f"s3://bucket/deep/1/{RUN}/artifacts"),
        ("s3://bucket", f"s3a://bucket/1/{RUN}/artifacts"),
        ("gs://bucket/x", f"gs://bucket/x/1/{RUN}/artifacts"),
    ],
)
def test_a_location_in_the_destination_is_a_folder_of_its_own(destination: str, uri: str) -> None:
    assert Destination(destination).folder(RUN, uri) == f"1/{RUN}/"


@pytest.mark.parametrize(
    ("destination", "uri"),
    [
        ("s3://bucket/deep", f"s3://bucket/deeper/1/{RUN}/artifacts"),
        ("s3://bucket", f"gs://bucket/1/{RUN}/artifacts"),
        ("/data", f"/data/../etc/{RUN}/artifacts"),
        ("/data", f"file:///data/%2e%2e/etc/{RUN}/artifacts"),
        ("/data", f"//data/1/{RUN}/artifacts"),
        ("/data", f"/data/1/{RUN}/other"),
        ("/data", f"/data/1/{RUN[::-1]}/{RUN}/artifacts"),
        ("/data", "/data"),
        ("/data", "mlflow-artifacts:/"),
        ("/data", f"mlflow-artifacts:/1/../../{RUN}/artifacts"),
    ],
)
def test_any_other_location_is_strange(destination: str, uri: str) -> None:
    with pytest.raises(StrangeLocation):
        Destination(destination).folder(RUN, uri)


@pytest.mark.parametrize(
    ("cron", "then"),
    [
        ("30 3 * * *", datetime(2026, 11, 24, 3, 30)),
        ("*/15 * * * *", datetime(2026, 11, 23, 3, 45)),
        ("0 4 * * 0", datetime(2026, 11, 29, 4, 0)),
        ("0 4 * * 7", datetime(2026, 11, 29, 4, 0)),
        ("0 0 13 * 5", datetime(2026, 11, 27, 0, 0)),  # Friday, or the thirteenth: as cron reads it
        ("0 0 29 2 *", datetime(2028, 2, 29, 0, 0)),
    ],
)
def test_a_schedule_comes_at_the_next_minute_that_matches(cron: str, then: datetime) -> None:
    assert next_time(cron, datetime(2026, 11, 23, 3, 30, 12)) == then


@pytest.mark.parametrize(
    "cron", ["", "daily", "* * * *", "61 * * * *", "a b c d e", "0 0 0 0 0 0", "0 0 30 2 *", "0 0 31 4,6 *"]
)
def test_what_is_no_schedule_is_refused(cron: str) -> None:
    with pytest.raises(UserError, match="cannot read the schedule"):
        next_time(cron, datetime(2026, 11, 23))


def test_the_page_needs_no_network_and_escapes_names() -> None:
    page = as_html([Usage("1", "<script>", bytes=10, deleted_bytes=5)], 5)
    assert "<script>" not in page
    assert "http" not in page
    assert "width:50.00%" in page


def test_totals_count_all_and_the_list_only_the_largest() -> None:
    shown = as_json([Usage("1", "a", bytes=10), Usage("2", "b", bytes=5)], 1)
    assert shown["total"]["bytes"] == 15
    assert [item["name"] for item in shown["experiments"]] == ["a"]


def test_references_that_differ_in_a_value_alone_are_each_deleted() -> None:
    """A run's rows in `inputs` are those of its inputs and those of its outputs."""
    metadata = MetaData()
    Table("experiments", metadata, Column("experiment_id", Integer, primary_key=True))
    Table("runs", metadata, Column("run_uuid", String, primary_key=True))
    names = ("source_type", "source_id", "destination_type", "destination_id")
    Table("inputs", metadata, *(Column(name, String, primary_key=True) for name in names))
    statements = Schema(metadata, SQLiteLanguage()).closure("runs", "run_uuid")
    kinds = {
        value
        for statement in statements
        if statement.table == "inputs"
        for name, value in statement.sql.compile().params.items()
        if "type" in name
    }
    assert kinds == {"RUN", "RUN_INPUT", "RUN_OUTPUT"}
