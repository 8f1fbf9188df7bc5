"""Jobs that have ended go when they are asked for, as with ``mlflow gc --jobs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from console import UserError

if TYPE_CHECKING:
    from tests.support.small import Small

STATUS = ["pending", "running", "succeeded", "failed", "timeout", "canceled", "needs recovery"]


@pytest.fixture
def small(small: Small) -> Small:
    for number, name in enumerate(STATUS):
        for age, created in (("old", 1), ("new", 32503680000000)):
            small.sql(
                "INSERT INTO jobs (id, creation_time, job_name, params, workspace, status, retry_count,"
                " last_update_time) VALUES (:id, :at, 'j', '{}', 'default', :status, 0, :at)",
                id=f"{age} {name}",
                at=created,
                status=number,
            )
    small.sql("INSERT INTO job_locks (lock_key, job_id, acquired_at) VALUES ('k', 'old failed', 1)")
    return small


def test_jobs_stay_unless_they_are_asked_for(small: Small) -> None:
    small.clean()
    assert len(small.rows("SELECT id FROM jobs")) == 2 * len(STATUS)


def test_old_jobs_that_have_ended_go_with_their_locks(small: Small) -> None:
    report = small.clean(only=("jobs",), older_than="1d")
    assert report.deleted["job"] == report.rows["jobs"] == 4
    left = set(small.rows("SELECT id FROM jobs"))
    assert left == {f"new {name}" for name in STATUS} | {"old pending", "old running", "old needs recovery"}
    assert small.rows("SELECT job_id FROM job_locks") == []
    assert report.left == 0


def test_jobs_belong_to_no_experiment(small: Small) -> None:
    with pytest.raises(UserError, match="jobs belong to no experiment"):
        small.clean(only=("jobs",), experiment_ids=("1",))
