"""Maintenance of a stack's data: commands that run where they reach the stores, or here for any other MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import UserError, confirm, emit_json, interactive, note
from stacks import engines
from stacks.definition.rendering import Stores
from stacks.definition.settings import ROOT
from stacks.state import reserve
from stacks.state.opening import open_recorded
from stacks.state.record import locked
from verbs import Backup, Cleanup, Inspect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stacks.engines import Engine
    from verbs import Migrate, Request, Restore, Usage

ANSWER_SECONDS = (
    10.0  # a store that is busy may take its time; one that hangs would be waited for for minutes
)
PASSPHRASE = "gateway-passphrase"  # noqa: S105 (the secret's name)


def run(request: Request) -> None:
    """Have a verb done beside the data of a stack, or, with a database of its own, here for any MLflow.

    Args:
        request: of a verb with a module, a stack and a `backend_store_uri`.

    Raises:
        UserError: the stack was never up.
        SystemExit: with the module's exit code, unless that is 0.
    """
    given: Any = request
    if given.backend_store_uri:
        here(request)
        return
    engine = _engine(given.stack)
    frees = engine.room_at_hand() if isinstance(request, Cleanup) else nullcontext()
    with frees:
        code = engine.run(request.argv(), {})
    _finish(code)


def cleanup(request: Cleanup) -> None:
    """Delete for good, after a backup where one is asked for; else it is said how old the newest one is; see `run`.

    Raises:
        UserError: as in `run` and in `backup`.
        SystemExit: as in `run`; the backup failed, and nothing was deleted.
    """
    if request.dry_run or not request.backup:
        if not request.backend_store_uri:
            _tell_newest(request.stack, request.to)
        run(request)
        return
    if not request.yes:
        run(request.but(dry_run=True, json=request.json and not interactive()))
        if not confirm("back up, then delete all this for good?", yes=False):
            return
    named = ("stack", "backend_store_uri", "registry_store_uri", "artifacts_destination", "to", "wait")
    backup(Backup(**{name: getattr(request, name) for name in named}))
    run(request.but(yes=True))


def _tell_newest(stack: str, to: str) -> None:
    """Say when a stack was last backed up: what a cleanup deletes is in no later set."""
    if is_bucket(to):  # asking it takes keys and seconds
        return
    from backups.sets import list_sets

    created = [
        backup.manifest["created"]
        for backup in list_sets(Path(to))[0]
        if backup.manifest.get("stack") == stack
    ]
    if not created:
        note(
            f"stack '{stack}' has no backup in {to}; to take one first: invoke cleanup --stack={stack} --backup"
        )
        return
    age = datetime.now(UTC) - datetime.fromisoformat(created[-1])
    note(
        f"the newest backup of stack '{stack}' in {to} is {age.days} days and {age.seconds // 3600} hours old"
    )


def migrate(request: Migrate) -> None:
    """Migrate the schema, with a backup in the folder that `to` names; see `run`.

    Raises:
        UserError: as in `run`; also, that folder cannot be written, or the stack does not come up again.
        SystemExit: as in `run`.
    """
    if request.backend_store_uri:
        run(request)
        return
    engine = _engine(request.stack)
    deployment = engine.deployment
    if request.check:
        _finish(engine.run(request.argv(), {}))
        return
    if is_bucket(request.to):  # what fails is put back from there at once
        raise UserError("migrate takes its backup to a folder", "give --to=FOLDER")
    to = folder_of_sets(request.to)
    words = request.but(to=str(to), yes=True).argv()
    with locked(deployment, "migrate"):
        engine.check_room()
        schema = _answer(engine, request.but(check=True, json=True))
        states = {schema["state"], *(database["state"] for database in schema["databases"].values())}
        if "behind" not in states:  # nothing to do, or nothing that can be done: it says so
            _finish(engine.run(words, _named(engine), folders=[to]))
            return
        note(f"  a backup goes to {to} first")
        if not confirm(f"Migrate the database of stack '{request.stack}'?", yes=request.yes):
            if request.json:
                emit_json(schema)
            raise SystemExit(1)
        with engine.without_server():
            code = engine.run(words, _named(engine), folders=[to])
    _finish(code)


def backup(request: Backup) -> None:
    """Back up to the place that `to` names, the key that a stack's data depends on included; see `run`.

    Raises:
        UserError: as in `run`; also, that place cannot be written.
        SystemExit: as in `run`.
    """
    if request.backend_store_uri:
        run(request)
        return
    _finish(back_up(_engine(request.stack), request))


def back_up(engine: Engine, request: Backup) -> int:
    """`backup` of the stack of an engine; returns the verb's exit code."""
    to = request.to
    keys = (str(engine.secret(PASSPHRASE)),) if PASSPHRASE in engine.deployment.rotated else ()
    with _exchange() as folder:
        variables = {**_named(engine), **_keys_of(to, folder)}
        place = to if is_bucket(to) else folder_of_sets(to)
        words = request.but(to=str(place), include=keys).argv()
        folders = [folder, *([place] if isinstance(place, Path) else [])]
        # PostgreSQL writes a snapshot; the room for that must not go into the set itself
        elsewhere = not isinstance(place, Path) or not reserve.on_disk_of(engine.deployment, place)
        asks = bool(engine.deployment.having("keeps_data")) and elsewhere
        with engine.room_at_hand() if asks else nullcontext():
            return engine.run(words, variables, folders=folders)


def restore(request: Restore) -> None:
    """Put the set that `backup` names back; see `run`.

    Its provider keys were stored with the passphrase of its day. They are opened to the stack's own, which may be a
    newer one, or another stack's.

    Raises:
        UserError: as in `run`; also, the stack does not come up again.
        SystemExit: as in `run`.
    """
    if request.backend_store_uri:
        run(request)
        return
    engine = _engine(request.stack)
    given = request.backup
    if not is_bucket(given):
        given = str(_existing_set(given))
    request = request.but(backup=given, migrate=True)  # a server will start
    with locked(engine.deployment, "restore"):
        engine.check_room()
        with _exchange() as folder:
            asked = request.but(plan=True)
            plan = _answer(engine, asked, *_reaching(asked, folder))
        if not confirm(f"Replace the data of stack '{request.stack}'?", yes=request.yes):
            raise SystemExit(1)
        with engine.without_server():
            code = put_back(engine, request.but(yes=True, shown=plan["fingerprint"]))
    _finish(code)


def put_back(engine: Engine, request: Restore) -> int:
    """`restore` to the stack of an engine, whose server does not run; returns the verb's exit code."""
    with _exchange() as folder:
        variables, folders = _reaching(request, folder)
        words = request.but(artifact_root="mlflow-artifacts:/", keys_to=str(folder)).argv()
        code = engine.run(words, {**_named(engine), **variables}, folders=folders)
        then = folder / PASSPHRASE
        if code == 0 and PASSPHRASE in engine.deployment.rotated and then.exists():
            uri = Stores.of(engine.deployment, engine.name).backend_store_uri
            words = [uri, str(then), str(engine.secret(PASSPHRASE))]
            code = engine.run(["-m", "services.rekey", *words], {}, folders=[folder])
        return code


def put_back_saved(engine: Engine, request: Restore) -> int:
    """`put_back` over data that has a backup already."""
    return put_back(engine, request.but(no_backup=True))


def _reaching(request: Restore, folder: Path) -> tuple[dict[str, str], list[Path]]:
    """What a command needs to reach a set: variables, and the folders that it is given."""
    here = Path(request.backup)
    place = here if request.no_backup or request.plan else here.parent  # another set is written beside it
    return _keys_of(request.backup, folder), [folder, *([] if is_bucket(request.backup) else [place])]


def _answer(
    engine: Engine, request: Request, variables: Mapping[str, str] | None = None, folders: Sequence[Path] = ()
) -> dict[str, Any]:
    """The JSON that a verb answers with; what it says to people goes to them.

    Raises:
        SystemExit: it failed, and has said why.
    """
    with tempfile.TemporaryFile("w+") as output:
        code = engine.run(
            request.argv(), {**_named(engine), **(variables or {})}, folders=folders, output=output
        )
        output.seek(0)
        text = output.read()
    if not text:
        raise SystemExit(code or 1)
    return dict(json.loads(text))


def inspect(engine: Engine) -> dict[str, Any]:
    """What the MLflow of an engine makes of its stack's database (see `database.inspection.inspect`).

    Raises:
        UserError: it cannot be read.
    """
    with tempfile.TemporaryFile("w+") as output:
        if engine.run(Inspect().argv(), _named(engine), output=output):
            raise UserError("the database cannot be read; its reason stands above")
        output.seek(0)
        return dict(json.load(output))


def _engine(stack: str) -> Engine:
    """A stack's engine, with its stores up.

    Raises:
        UserError: the stack was never up, or a store does not run, or not answer.
    """
    engine = engines.running(open_recorded(stack))
    stores = engine.deployment.having("keeps_data")
    deadline = time.monotonic() + ANSWER_SECONDS
    while away := [status for status in engine.services() if status.name in stores and not status.ready]:
        hung = [status.name for status in away if status.state == "running"]
        if len(hung) < len(away):
            gone = next(status for status in away if status.name not in hung)
            raise UserError(
                f"the data of stack '{stack}' is out of reach: its service '{gone.name}' is {gone.state}",
                f"start it: invoke up --stack={stack}",
            )
        if time.monotonic() > deadline:
            raise UserError(
                f"the data of stack '{stack}' is out of reach: its service '{hung[0]}' runs and does not answer",
                f"what it last said: invoke logs --stack={stack} --service={hung[0]}",
                f"start it anew: invoke down --stack={stack}, then invoke up --stack={stack}",
            )
        time.sleep(0.5)
    return engine


def is_bucket(address: str) -> bool:
    """Whether a place of backups is a bucket, not a folder."""
    return address.startswith("s3://")


@contextmanager
def _exchange() -> Iterator[Path]:
    """A closed folder for keys that go to a command, or come from it."""
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as name:
        yield Path(name)


def _keys_of(address: str, folder: Path) -> dict[str, str]:
    """What tells a command of the keys that this environment has for a bucket of backups."""
    if not is_bucket(address):
        return {}
    from backups.in_s3 import surroundings  # boto3 is slow to import

    return surroundings(folder)


def _named(engine: Engine) -> dict[str, str]:
    """What tells a command which stack it works for, and its database from another stack's in one place of backups."""
    project = {"_MLFLOW_STACKS_PROJECT": engine.deployment.project} if engine.name == "compose" else {}
    return {"_MLFLOW_STACKS_STACK": engine.deployment.name, **project}


def _existing_set(given: str) -> Path:
    from backups.sets import LATEST, newest

    place = Path(given).absolute()
    if place.name == LATEST and not place.exists():
        return newest(place.parent)
    if not place.is_dir():
        raise UserError(f"no backup at {place}", "to see the sets there are: invoke backups")
    return place


def folder_of_sets(given: str) -> Path:
    """The absolute path of an existing folder."""
    folder = Path(given).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}", "give another: --to=FOLDER"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} is not writable for this user", f"see: ls -ld {folder}")
    return folder


def _finish(code: int) -> None:
    if code:
        raise SystemExit(code)


def usage(request: Usage) -> None:
    """Show who uses the space; with `html`, as a page in a file of this machine.

    Raises:
        UserError: as in `run`, or the file cannot be written.
        SystemExit: as in `run`.
    """
    if not request.html or request.backend_store_uri:
        run(request)
        return
    page = _engine(request.stack).capture(request.but(html="-").argv())
    try:
        Path(request.html).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {request.html}: {error.strerror}") from None
    note(f"wrote {request.html}")


def here(request: Request) -> None:
    """Have a verb done in this environment.

    Raises:
        SystemExit: with its exit code, unless that is 0.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    _finish(subprocess.run([sys.executable, *request.argv()], env=environment, check=False).returncode)
