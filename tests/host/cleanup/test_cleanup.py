"""What a cleanup deletes and what it leaves, on a data set made by a real client through a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.world import PROTECTED_RUNS, PURGED_RUNS

if TYPE_CHECKING:
    from tests.support.cleaned import World


def test_everything_deleted_goes_and_everything_live_reads_back_equal(world: World) -> None:
    before = world.runs()
    answer = world.cleanup("--yes", "--orphan-grace=0m")
    assert world.runs() == before - PURGED_RUNS - {"team-deleted", "team-gone"}
    world.assert_whole()
    world.assert_owned()
    there = set(world.rows("SELECT name FROM experiments"))
    assert "gone-2" not in there
    assert world.ids["gone"] not in {
        str(item) for item in world.rows("SELECT experiment_id FROM experiments")
    }
    assert {item["id"] for item in answer["skipped"] if item["kind"] == "run"} == {
        world.ids[name] for name in PROTECTED_RUNS
    }
    assert answer["deleted"]["logged_models"] == 2  # model-deleted and gone-model
    assert answer["deleted"]["traces"] == 1
    assert answer["left"] == len(answer["skipped"])


def test_objects_that_live_things_own_are_all_there_afterwards(world: World) -> None:
    gone = {world.ids[name] for name in PURGED_RUNS | {"gone-model", "gone-trace", "model-deleted"}}
    gone |= {entity for name, entity in world.ids.items() if name in {"team-deleted", "team-gone"}}
    expected = {key for key in world.objects() if not gone & set(key.split("/"))}
    world.cleanup("--yes", "--orphan-grace=0m")
    assert world.objects() == expected


def test_a_second_cleanup_finds_nothing_more(world: World) -> None:
    world.cleanup("--yes", "--orphan-grace=0m")
    again = world.cleanup("--yes", "--orphan-grace=0m")
    assert not any(again["deleted"].values())
    assert again["artifacts"] == {"objects": 0, "bytes": 0}


def test_the_plan_counts_exactly_what_is_then_deleted(world: World) -> None:
    planned = world.cleanup("--dry-run", "--orphan-grace=0m")
    world.assert_whole()
    deleted = world.cleanup("--yes", "--orphan-grace=0m")
    assert planned["dry_run"]
    assert not deleted["dry_run"]
    for part in ("runs", "experiments", "logged_models", "traces"):
        assert planned["deleted"][part] == deleted["deleted"][part]
    assert planned["artifacts"] == deleted["artifacts"]
    assert {(item["kind"], item["id"]) for item in planned["skipped"]} == {
        (item["kind"], item["id"]) for item in deleted["skipped"]
    }
    assert planned["rows"]["metrics"] == deleted["rows"]["metrics"]
