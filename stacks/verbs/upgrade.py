"""Another MLflow for a stack that holds data, newer or older, or exactly what ran before.

What the version runs in (an environment, an image) is made beside what runs, and asked what it makes of the schema;
that is the plan, and until its question is answered nothing has changed. Then: stop what writes, back up, bring the
schema to the version (migrate it, or restore a set of its day: MLflow has no migration backwards), start, and let a
real client try it. A small journal is written before each step. A step that fails is followed by the way back: the old
version with the data of the backup. Where the journal is still there, because we were killed, `up` goes that way.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import UserError, confirm, note
from files import require_room, write_atomically
from services.smoke import Smoke
from stacks import engines
from stacks.state import environments
from stacks.state.journal import Action, Journal, read
from stacks.state.opening import reopened, with_version
from stacks.state.record import JOURNAL, ROTATION, locked
from stacks.verbs import data
from verbs import Backup, Migrate, Restore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backups.sets import BackupSet
    from stacks.definition.deployment import Deployment
    from stacks.engines import Engine


ALL_SETS = 10**6  # nothing is pruned: what a later way back needs may be the oldest set
LOCK_SECONDS = (
    600  # what a killed upgrade left running ends by itself, and holds the database's lock until then
)
ENVIRONMENT_BYTES = 10**9  # an environment or an image, and what is downloaded for it
SHOWN_ROWS = ("experiments", "runs", "logged_models", "trace_info", "registered_models", "model_versions")


@dataclass(frozen=True)
class Plan:
    """What an upgrade would do.

    Attributes:
        stack: its name.
        before: the version that runs.
        after: the version that will.
        folder: of the backup sets.
        action: what brings the schema to that version.
        found: what the new version says of the database (`database.inspection.inspect`); empty without one.
        restore: the set that `restore` takes.
    """

    stack: str
    before: str
    after: str
    folder: Path
    action: Action = "none"
    found: Mapping[str, Any] | None = None
    restore: BackupSet | None = None

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        text = [f"stack '{self.stack}': MLflow {self.before} becomes {self.after}"]
        if self.found is None:
            return [*text, "  it keeps no data; it is away for some seconds"]
        text.append(f"  first    a backup to {self.folder}, while the tracking server is stopped")
        if self.action == "none":
            text.append(f"  schema   stays at revision {self.found['revision']}")
        elif self.action == "migrate":
            pending = self.found["pending"]
            count = f"{len(pending)} revision{'s' if len(pending) > 1 else ''}"
            text.append(f"  schema   {count} forward, to {self.found['head']}:")
            text += [f"             {step['revision']}  {step['title']}" for step in pending]
        elif self.restore:
            text.append(
                f"  schema   revision {self.found['revision']} is newer than MLflow {self.after} knows"
            )
            text.append(f"  data     goes back to the backup of {self.restore.manifest['created']}:")
            text.append(f"             {self.restore.line()}")
            text += [f"             {line}" for line in lost(self.found["rows"], self.restore)]
            text.append("           what was logged since is kept in the first backup alone")
        return [
            *text,
            "  then     start it, and log and read a run with its client; any failure puts all of it back",
        ]


def upgrade(
    deployment: Deployment, version: str, *, folder: str, yes: bool, timeout: float
) -> dict[str, Any] | None:
    """Bring a stack to another version of MLflow, newer or older.

    Args:
        deployment: the stack, as its last `up` left it; it runs.
        version: such as ``3.17.2``.
        folder: of the backup sets.
        yes: no question.
        timeout: seconds to wait until the stack is ready, each time that it is started.

    Returns:
        The shape of ``upgrade --json``; None after a no::

            {"stack": "local", "engine": "host", "from": "3.15.1", "to": "3.17.2", "changed": true,
             "action": "migrate",              what was done to the data: none, migrate or restore
             "restored": null,                 the set that it went back to
             "backup": "/.../20261123T234658Z", the set of the data as it was; null where a stack keeps none
             "schema": "dc11669786a5",         the revision now
             "smoke": {"url": "...", "old_run": "...", "seconds": 0.9},
             "away": 37.2, "seconds": 41.3}    seconds in which nothing answered, and in all

        With ``"changed": false`` it ends there, and has ``seconds``.

    Raises:
        UserError: it cannot be done, and nothing has changed; or a step failed, and what ran before runs again.
    """
    started = time.monotonic()
    stack = deployment.name
    with locked(deployment, "upgrade"):
        if recover(deployment, timeout=timeout):
            deployment = reopened(deployment)
        before = engines.running(deployment)
        runs = before.deployment.mlflow_version
        answer: dict[str, Any] = {"stack": stack, "engine": before.name, "from": runs, "to": version}
        if runs == version:
            note(f"stack '{stack}' runs MLflow {version} already")
            return {**answer, "changed": False, "seconds": round(time.monotonic() - started, 1)}
        try:
            plan, after = _plan(before, version, Path(folder).absolute())
        except UserError as error:
            raise UserError(
                f"the upgrade to MLflow {version} fails at its pre-flight: {error.message}",
                *error.hints,
                "nothing was changed",
            ) from None
        for line in plan.lines():
            note(line)
        if not confirm(f"Bring stack '{stack}' to MLflow {version}?", yes=yes):
            return None
        stopped = time.monotonic()
        outcome = _act(plan, before, after, timeout)
        ended = time.monotonic()
        environments.remove_others(after.deployment, keep={plan.before, plan.after})
        return {
            **answer,
            "changed": True,
            "action": plan.action,
            "restored": str(plan.restore.path) if plan.restore else None,
            **outcome,
            "away": round(ended - stopped, 1),
            "seconds": round(ended - started, 1),
        }


def recover(deployment: Deployment, *, timeout: float) -> bool:
    """Where an upgrade was killed, put back what ran before it. Call it with the stack's lock held.

    Args:
        deployment: the stack, as its last `up` left it.
        timeout: as in `upgrade`.

    Returns:
        Whether there was something to put back.

    Raises:
        UserError: that failed; the journal stays, and the next call tries again.
    """
    journal = read(deployment.state)
    if journal is None:
        return False
    note(f"the upgrade to MLflow {journal.after} was cut off at its step '{journal.step}'")
    _put_back(engines.running(with_version(deployment, journal.before)), journal, timeout)
    return True


def _plan(before: Engine, version: str, folder: Path) -> tuple[Plan, Engine]:
    """Look ahead: is there such a version, is there room, does it know the schema? Makes what it runs in."""
    deployment = before.deployment
    stack = deployment.name
    environments.check(version, deployment.services)
    if (deployment.state / ROTATION).exists():
        raise UserError("a rotation of the secrets was cut off", f"finish it: invoke up --stack={stack}")
    if waiting := [status.name for status in before.services() if not status.ready]:
        raise UserError(
            f"stack '{stack}' is not healthy: {', '.join(waiting)}", f"start it: invoke up --stack={stack}"
        )
    after = engines.running(with_version(deployment, version))
    environments.lock(after.deployment, local=before.name == "host")
    _check_room(before, folder)
    before.prepare()  # this checkout may be newer than what runs, and the way back must be open
    after.prepare()
    plan = Plan(stack, deployment.mlflow_version, version, folder)
    if not deployment.having("writes"):
        return plan, after
    schema = data.inspect(after)
    if schema["state"] in {"empty", "unknown"}:
        raise UserError(f"the schema is {schema['state']}: {schema['detail']}")
    action: Action = {"current": "none", "behind": "migrate", "ahead": "restore"}[schema["state"]]  # type: ignore[assignment]
    restore = None
    if action == "restore":
        from backups.sets import list_sets

        restore = choose(list_sets(folder)[0], schema)
        if restore is None:
            raise UserError(
                f"its schema is newer than MLflow {version} knows, and no backup of this database that it knows is in "
                f"{folder}",
                "MLflow has no migration backwards: an older version needs a backup of its day",
                "backups elsewhere: add --backups=FOLDER",
            )
    return replace(plan, found=schema, action=action, restore=restore), after


def choose(sets: Sequence[BackupSet], schema: Mapping[str, Any]) -> BackupSet | None:
    """The newest backup set of a database whose schema a version of MLflow knows.

    Args:
        sets: the sets there are, oldest first.
        schema: what that version says of the database (`database.inspection.inspect`).
    """
    from backups.sets import is_whole

    for backup in reversed(sets):
        database = backup.database
        same = database["source"] == schema["source"] and database.get("identity") == schema["identity"]
        if same and database["revision"] in schema["known"] and is_whole(backup):
            return backup
    return None


def lost(rows: Mapping[str, int], backup: BackupSet) -> list[str]:
    """What a database has more than a backup set of it, a line each."""
    then = backup.database["rows"]
    more = {name: rows.get(name, 0) - then.get(name, 0) for name in SHOWN_ROWS}
    return [
        f"{name}: {rows[name]} become {then.get(name, 0)}, {count} fewer"
        for name, count in more.items()
        if count > 0
    ]


def _check_room(engine: Engine, folder: Path) -> None:
    """Hold that there is room for the version, and for a backup as large as the data."""
    data.folder_of_sets(str(folder))
    require_room(engine.deployment.state, ENVIRONMENT_BYTES, "another MLflow")
    held = engine.stores()
    if needed := held.get("database", 0) + _new_artifacts(folder, held.get("artifacts", 0)):
        require_room(folder, needed, "a backup")


def _new_artifacts(folder: Path, total: int) -> int:
    """Bytes of artifacts that no set has yet; the others are linked."""
    from backups.sets import list_sets

    kept = (backup.artifacts["bytes"] for backup in list_sets(folder)[0] if backup.artifacts)
    return max(0, total - max(kept, default=0))


def _act(plan: Plan, before: Engine, after: Engine, timeout: float) -> dict[str, Any]:
    """Do it, or put back what ran before."""
    path = before.deployment.state / JOURNAL
    journal = Journal(plan.before, plan.after, str(plan.folder), "backup", plan.action)

    def begin(step: str, backup: str = "") -> None:
        nonlocal journal
        journal = replace(journal, step=step, backup=backup or journal.backup)
        write_atomically(path, json.dumps(asdict(journal), indent=2).encode())
        note(f"upgrade: {step}")

    outcome: dict[str, Any] = {"backup": None, "schema": None, "smoke": None}
    try:
        if plan.found is not None:
            begin("backup")
            saved = _back_up(before, plan.folder, "before-upgrade")
            outcome["backup"] = str(saved)
            if plan.action == "restore" and plan.restore:
                begin("restore", backup=str(saved))
                wanted = Restore(backup=str(plan.restore.path), yes=True, migrate=True)
                _succeed(data.put_back_saved(after, wanted))
            elif plan.action == "migrate":
                begin("migrate", backup=str(saved))
                _migrate(after, saved)
        begin("start")
        after.up(timeout=timeout)
        if plan.found is not None:
            begin("smoke test")
            outcome["smoke"] = json.loads(after.capture(Smoke(url=after.inner_url, json=True).argv()))
            outcome["schema"] = plan.found["head"]
    except BaseException as error:
        note(f"upgrade: '{journal.step}' failed; putting back MLflow {plan.before}")
        try:
            _put_back(before, journal, timeout)
        except UserError as second:
            raise _unmended(journal, error, second) from None
        if isinstance(error, (UserError, KeyboardInterrupt)):
            raise _failed(journal, error, plan.stack) from None
        raise
    path.unlink()
    return outcome


def _back_up(engine: Engine, folder: Path, purpose: str) -> Path:
    """Stop what writes, and write a set.

    Returns:
        Its folder.
    """
    from backups.sets import list_sets

    for service in engine.deployment.having("writes"):
        engine.stop(service)
    there = {backup.path for backup in list_sets(folder)[0]}
    _succeed(data.back_up(engine, Backup(to=str(folder), keep=ALL_SETS, purpose=purpose)))
    return next(backup.path for backup in reversed(list_sets(folder)[0]) if backup.path not in there)


def _migrate(engine: Engine, backup: Path) -> None:
    """Bring the schema to the head of the engine's version; `backup` is of the database as it is now."""
    _succeed(engine.run(Migrate(yes=True, backup=str(backup)).argv(), {}, folders=[backup]))


def _put_back(engine: Engine, journal: Journal, timeout: float) -> None:
    """Bring back the version that ran, and the data of the backup where it may have changed since."""
    engine.prepare()
    for service in engine.deployment.having("writes"):
        engine.stop(service)
    if journal.data_changed:
        if stores := engine.deployment.having("before_schema"):
            engine.up(timeout=timeout, services=stores)
        if journal.served:
            kept = _back_up(engine, Path(journal.folder), "before-way-back")
            note(f"whatever was logged to MLflow {journal.after} meanwhile is kept in {kept}")
        _succeed(data.put_back_saved(engine, Restore(backup=journal.backup, yes=True, wait=LOCK_SECONDS)))
    engine.up(timeout=timeout)
    (engine.deployment.state / JOURNAL).unlink(missing_ok=True)
    note(f"stack '{engine.deployment.name}' runs MLflow {journal.before} again, its data is as it was")


def _succeed(code: int) -> None:
    if code:
        raise UserError("its reason stands above")


def _failed(journal: Journal, error: UserError | KeyboardInterrupt, stack: str) -> UserError:
    reason = error if isinstance(error, UserError) else UserError("interrupted")
    return UserError(
        f"the upgrade to MLflow {journal.after} failed at its step '{journal.step}': {reason.message}",
        *reason.hints,
        f"stack '{stack}' runs MLflow {journal.before} as before, and its data is as it was",
        *([f"the backup taken first: {journal.backup}"] if journal.backup else []),
    )


def _unmended(journal: Journal, error: BaseException, second: UserError) -> UserError:
    reason = error.message if isinstance(error, UserError) else str(error) or "interrupted"
    return UserError(
        f"the upgrade to MLflow {journal.after} failed at its step '{journal.step}': {reason}",
        f"and MLflow {journal.before} could not be put back: {second.message}",
        *second.hints,
        *([f"the data as it was: {journal.backup}"] if journal.backup else []),
        "try again to put it back: invoke up",
    )
