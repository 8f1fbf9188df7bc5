"""What a restore would replace: each database of a set, and what lies beside MLflow's tables there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.backup import NONE
from backups.databases import AUTH, FLAGS, TRACKING, opened
from backups.loading import check_pair
from console import UserError, note, size
from database.address import normalize, redact
from database.connection import is_missing
from database.dialect import dialect_of
from database.inspection import source_of
from database.others import Others
from database.schema import read_schema
from database.tables import has_auth, has_tracking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Engine

    from backups.sets import BackupSet
    from database.revision import Schema


@dataclass(frozen=True)
class Target:
    """One database that a restore would replace.

    Attributes:
        name: see `backups.databases`.
        part: what the set has for it.
        database: its URI, without a password.
        schema: the state of its schema; None where there is no file yet.
        rows: of each table of MLflow's.
        users: who else uses the database at this moment, a line each.
        others: what lies beside MLflow's tables.
        identity: what tells the database from every other, where its kind has that.
    """

    name: str
    part: dict[str, Any]
    database: str
    schema: Schema | None = None
    rows: dict[str, int] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    others: Others = field(default_factory=Others)
    identity: dict[str, Any] | None = None

    @property
    def facts(self) -> list[Any]:
        """Return what is equal as long as the same would be replaced; rows may come and go meanwhile."""
        revision = self.schema and self.schema.revision
        beside = [self.others.relations, self.others.views, self.others.keys]
        return [self.name, self.database, self.identity, revision, *beside]

    def refuse(self) -> None:
        """Refuse to go on where more would go than what the set has.

        Raises:
            UserError: tables of others refer to MLflow's, or this is a tracking store and the set's is basic auth's.
        """
        self.others.refuse_keys()
        if has_tracking(self.rows) and not has_tracking(self.part["rows"]):
            raise UserError(
                f"{self.database} holds experiments, and the backup has but users and permissions for it",
                f"check --{FLAGS[self.name]}; nothing was changed",
            )

    def line(self) -> str:
        """Return what becomes of it."""
        title = "database" if self.name == TRACKING else self.name
        state = self.schema.state if self.schema else "no file yet"
        now, then = sum(self.rows.values()), sum(self.part["rows"].values())
        return f"  {title:<9}  {self.database}: {now} rows ({state}) become {then} rows"

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``restore --plan`` shows of each."""
        return {
            "database": self.database,
            "state": self.schema.state if self.schema else "empty",
            "rows": self.rows,
            "users": self.users,
            "kept": [name for _, name in self.others.relations],
            "blocked": [key._asdict() for key in self.others.keys],
        }


@dataclass(frozen=True)
class Plan:
    """What a restore would replace: the set, and each database, the tracking store's first."""

    backup: BackupSet
    targets: tuple[Target, ...]

    @property
    def fingerprint(self) -> str:
        """Return what is equal as long as the same would be replaced by the same."""
        parts = [self.backup.manifest["checksum"], *(target.facts for target in self.targets)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def refuse(self) -> None:
        """See `Target.refuse`."""
        for target in self.targets:
            target.refuse()

    def lines(self, destination: str | None) -> list[str]:
        """Return the plan as a person reads it."""
        text = [f"restore {self.backup.where} of {self.backup.manifest['created']}"]
        text += [target.line() for target in self.targets]
        artifacts = self.backup.artifacts
        if artifacts and destination:
            amount = f"{artifacts['objects']} objects, {size(artifacts['bytes'])}"
            text.append(f"  artifacts  {redact(destination)}: {amount}")
        elif artifacts:
            text.append("  artifacts  left alone: no --artifacts-destination")
        for target in self.targets:
            text += [*target.others.lines(), *(f"  in use by  {user}" for user in target.users)]
        return text

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``restore --plan`` shows."""
        first, *further = self.targets
        return {
            "backup": self.backup.as_json(),
            **first.as_json(),
            "databases": {target.name: target.as_json() for target in further},
            "fingerprint": self.fingerprint,
        }


def plan(
    uri: str, backup: Path | BackupSet, *, further: Mapping[str, str] = NONE, leave_out: Sequence[str] = ()
) -> Plan:
    """Look at a set and at the databases it would replace; changes nothing. See `restore` for the arguments.

    Raises:
        UserError: no usable set, a database that cannot be reached or was not given, or a set that this MLflow
            cannot use.
    """
    chosen = opened_set(backup)
    uris = wanted(chosen, {TRACKING: uri, **further}, leave_out)
    there = {name: given for name, given in uris.items() if not is_missing(given)}
    with opened(there) as engines:
        refuse_shared(there, engines)
        targets = {target.name: target for target in targets_of(engines, chosen)}
    new = {name: normalize(given).render_as_string(hide_password=True) for name, given in uris.items()}
    return Plan(
        chosen,
        tuple(
            targets.get(name) or Target(name, chosen.databases[name], shown) for name, shown in new.items()
        ),
    )


def opened_set(backup: Path | BackupSet) -> BackupSet:
    """Return a set that may be given as its folder."""
    return sets.open_set(backup.absolute()) if isinstance(backup, Path) else backup


def wanted(backup: BackupSet, given: Mapping[str, str], leave_out: Sequence[str]) -> dict[str, str]:
    """Return the URI of each database of a set that is to be restored, by name.

    Raises:
        UserError: the set has one that no URI was given for, or that cannot become one of that kind.
    """
    chosen = {name: given.get(name, "") for name in backup.databases if name not in leave_out}
    for name, uri in chosen.items():
        if not uri:
            raise UserError(
                f"the backup {backup.where} holds the {name} database, too, and no place was given for it",
                f"give --{FLAGS[name]}=URI, or leave it out: --leave-out={name}",
            )
        check_pair(normalize(uri).get_backend_name(), backup, backup.databases[name])
    for name in given:
        if name not in backup.databases and not (name == AUTH and has_auth(backup.database["rows"])):
            note(
                f"the backup holds no {name} database of its own: what --{FLAGS[name]} names is left as it is"
            )
    return chosen


def refuse_shared(uris: Mapping[str, str], engines: Mapping[str, Engine]) -> None:
    """Refuse to put two databases of a set into one, where the second would replace the first.

    Raises:
        UserError: two of them have the same place.
    """
    for name in uris.keys() - engines.keys():
        raise UserError(
            f"--{FLAGS[name]} names a database that another one of the backup goes to",
            f"give the {name} database a place of its own, or leave it out: --leave-out={name}",
        )


def targets_of(engines: Mapping[str, Engine], backup: BackupSet) -> Iterator[Target]:
    """Yield what each database of a set would replace."""
    for name, engine in engines.items():
        database = dialect_of(engine)
        yield Target(
            name,
            backup.databases[name],
            source_of(engine),
            read_schema(engine, auth_alone=True),
            database.rows(),
            database.users(),
            database.others(),
            database.identity(),
        )
