"""What a state directory remembers of its stack, who may change it at a time, and files that only their owner reads."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from console import UserError
from disks import explain, has_room
from files import file_lock, write_if_changed
from stacks.definition import settings
from stacks.definition.deployment import Record
from stacks.state import reserve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stacks.definition.deployment import Deployment

RECORD = "stack.json"
JOURNAL = "upgrade.json"  # of an upgrade that has not ended (stacks.verbs.upgrade)
ROTATION = Path("secrets/rotation")  # new secrets that are not everywhere in use yet (stacks.verbs.rotation)


def read(state: Path) -> Record:
    """The record in a state directory; the default where there was no `up`.

    Raises:
        UserError: the record is not readable as JSON, or is none.
    """
    path = state / RECORD
    try:
        known = json.loads(path.read_text())
        if not isinstance(known, dict):
            raise ValueError("it is no JSON object")
        values = {field.name: known[field.name] for field in fields(Record) if field.name in known}
        for name, value in values.items():
            _hold_type(name, value)
        lists = {name: tuple(values.get(name, ())) for name in ("secrets", "exported")}
        return Record(**{**values, **lists})
    except (FileNotFoundError, NotADirectoryError):
        return Record()
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise UserError(
            f"the record of the last up cannot be read: {error}",
            f"it is {path}",
            f"write it anew: mv {path} {path}.broken, then invoke up --stack={state.name}",
        ) from None


def _hold_type(name: str, value: object) -> None:
    """Refuse a value that is no such part of a record.

    Raises:
        ValueError: it is none.
    """
    default = getattr(Record(), name)
    kind = list if isinstance(default, tuple) else type(default)
    words = value if isinstance(value, list) else ()
    if type(value) is not kind or not all(isinstance(word, str) for word in words):
        raise ValueError(f"'{name}' is {value!r}")
    if name in {"project", "mlflow_version"} and "/" in str(value):  # it becomes part of paths
        raise ValueError(f"'{name}' is {value!r}")


def remember(deployment: Deployment, engine: str, *, secrets: Iterable[str]) -> None:
    """Write the record of an `up`: engine, images, names of the secrets made so far, settings."""
    record = Record(
        stack=deployment.name,
        engine=engine,
        project=deployment.project,
        place=str(deployment.state),
        socket=str(deployment.socket),
        generation=deployment.generation,
        mlflow_version=deployment.mlflow_version,
        images=dict(deployment.images),
        secrets=tuple(sorted({*secrets, *read(deployment.state).secrets})),
        exported=deployment.gateway.exported if deployment.gateway else (),
        settings=settings.chosen(deployment.stack.settings, deployment.settings),
    )
    _write(deployment.state, record)


def nothing_started(deployment: Deployment) -> None:
    """Note that an `up` started nothing: the next one goes on with the settings from before."""
    known = read(deployment.state)
    _write(deployment.state, replace(known, settings=deployment.recorded.settings))


def taken_down(state: Path) -> None:
    """Note that a stack was taken down, and shall not run; on a full disk that stays unknown."""
    with suppress(UserError):
        _write(state, replace(read(state), down=True))


def _write(state: Path, record: Record) -> None:
    write_private(state / RECORD, json.dumps(asdict(record), indent=2) + "\n")


@contextmanager
def locked(deployment: Deployment, purpose: str) -> Iterator[None]:
    """Hold a stack's lock, so that two of us never change it at once; a killed holder leaves none.

    Raises:
        UserError: somebody else holds it (says who and since when) or has changed the stack since the deployment was
            opened, the directory cannot be written, its disk is full (but for `down` and `prune`, which free some), or
            an upgrade was cut off that `up` has to put back first.
    """
    state = deployment.state
    make_private_dir(state)
    if (state / JOURNAL).exists() and purpose not in {"up", "down", "upgrade"}:
        raise UserError(
            f"an upgrade of stack '{deployment.name}' was cut off",
            f"put back what ran before it: invoke up --stack={deployment.name}",
        )
    reserve.watch(deployment)
    if purpose not in {"down", "prune"} and not has_room(state):  # what cannot end well does not begin
        raise UserError(*explain(place=state))

    def refusal(who: str) -> UserError:
        return UserError(
            f"stack '{deployment.name}' is being changed: its lock is {who}",
            "wait for it to end, then type the same command again",
        )

    with file_lock(state / "lock", f"invoke {purpose}", refusal):
        if read(state) != deployment.recorded:
            raise UserError(
                f"stack '{deployment.name}' was changed by another command in this moment",
                "type the same command again",
            )
        yield


def make_private_dir(path: Path) -> None:
    """Make a directory (and its parents) that only its owner can enter.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "no write permission")
    except OSError as error:
        raise UserError(
            f"the state directory {path} cannot be written: {error.strerror}",
            f"give it to yourself: sudo chown -R {os.getuid()} {path}",
            "or keep state elsewhere: invoke up --set state_dir=DIR",
        ) from None


def write_private(path: Path, text: str) -> bool:
    """Replace a file in one step with one that only its owner can read.

    Returns:
        Whether its content changed (an unchanged file is left alone).
    """
    make_private_dir(path.parent)
    return write_if_changed(path, text.encode(), 0o600)
