"""Every verb once: its name, its line in ``invoke --list``, and a frozen request whose fields are its flags.

To add a flag: declare it in flags.py, and add a field here, ``name: TYPE = flag(flags.NAME)``, its name with
underscores; a default or a help of its own goes into that call. Then use ``request.name``. To add a verb: a class here,
and in tasks.py a function that takes its request. A verb with a `module` runs beside the data: `stacks.verbs.data`
passes the request on as JSON, and ``python -m MODULE`` reads it with `arguments.read`.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, dataclass_transform

import flags
from console import UsageError
from flags import Flag, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
        name: as it is typed.
        group: ``Run``, ``Data`` or ``Develop``; empty for what is no task.
        help: one line, with its full stop.
        module: the words after ``python -m`` where it runs beside the data.
        flags: in the order of their fields.
    """

    name: str
    group: str
    help: str
    module: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()

    def flag(self, attribute: str) -> Flag:
        """Its flag of that attribute."""
        return next(flag for flag in self.flags if flag.attribute == attribute)

    def of_task(self) -> tuple[Flag, ...]:
        """The flags that `invoke` knows."""
        return tuple(flag for flag in self.flags if flag.side != "beside")

    def beside_data(self) -> tuple[Flag, ...]:
        """The flags that its module knows."""
        return tuple(flag for flag in self.flags if flag.side != "task")


class Request:
    """What a verb was asked for: frozen, with an attribute for each flag.

    No dataclass: what that writes and compiles for each verb would be a tenth of the time of ``invoke --list``.
    """

    verb: ClassVar[Verb]

    def __init__(self, **given: Any) -> None:
        for declared in self.verb.flags:
            if declared.required and declared.attribute not in given:
                raise UsageError(f"{self.verb.name} needs {declared.spelled}", f"its value: {declared.help}")
            vars(self)[declared.attribute] = given.pop(declared.attribute, declared.empty)
        if given:
            raise UsageError(f"{self.verb.name} has no flag --{min(given).replace('_', '-')}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a request is frozen: {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
        )

    def but(self, **changes: Any) -> Self:
        """The same request with some other values."""
        return type(self)(**{**vars(self), **changes})

    def argv(self) -> list[str]:
        """The words after ``python`` that have this done beside the data: the module, and the request as JSON."""
        default = {flag.attribute: flag.empty for flag in self.verb.beside_data()}
        given = {name: getattr(self, name) for name in default if getattr(self, name) != default[name]}
        return ["-m", *self.verb.module, json.dumps(given)]


VERBS: dict[str, type[Request]] = {}
"""Every verb by its name, in the order of this file."""

_R = TypeVar("_R", bound=Request)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def verb(name: str, group: str, text: str, *, module: Sequence[str] = ()) -> Callable[[type[_R]], type[_R]]:
    """Make a class the frozen request of a verb, or of a program that a stack starts."""

    def made(cls: type[_R]) -> type[_R]:
        own = tuple(value for value in vars(cls).values() if isinstance(value, Flag))
        cls.verb = Verb(name, group, text, tuple(module), own)
        if cls.__module__ == __name__:
            VERBS[name] = cls
        return cls

    return made


@verb("stacks", "Run", "List the stacks and what each one runs.")
class Stacks(Request):
    """The catalogue."""

    json: bool = flag(flags.JSON)


@verb("up", "Run", "Start a stack and wait until all of it is ready.")
class Up(Request):
    """Start."""

    stack: str = flag(flags.STACK)
    engine: str = flag(flags.ENGINE)
    set: tuple[str, ...] = flag(flags.SET)
    reset: bool = flag(flags.RESET)
    timeout: float = flag(flags.TIMEOUT)
    json: bool = flag(flags.JSON)


@verb("down", "Run", "Stop a stack; its data stays unless --volumes.")
class Down(Request):
    """Stop."""

    stack: str = flag(flags.STACK)
    volumes: bool = flag(flags.VOLUMES)
    yes: bool = flag(flags.YES)


@verb("status", "Run", "Show health, version, memory and disk use.")
class Status(Request):
    """Look."""

    stack: str = flag(flags.STACK)
    json: bool = flag(flags.JSON)


@verb("logs", "Run", "Print the logs of one service or all.")
class Logs(Request):
    """Read."""

    stack: str = flag(flags.STACK)
    service: str = flag(flags.SERVICE)
    follow: bool = flag(flags.FOLLOW)
    tail: int = flag(flags.TAIL)


@verb("render", "Run", "Print the files that `up` would use.")
class Render(Request):
    """Write, and start nothing."""

    stack: str = flag(flags.STACK)
    engine: str = flag(flags.ENGINE)
    set: tuple[str, ...] = flag(flags.SET)
    output: str = flag(flags.OUTPUT)


@verb("doctor", "Run", "Show what this machine lacks, and what mends it.")
class Doctor(Request):
    """Look at the machine."""

    json: bool = flag(flags.JSON)


@verb("about", "Run", "Show which version of what runs here.")
class About(Request):
    """Versions."""

    json: bool = flag(flags.JSON)


@verb("prune", "Run", "Remove images and environments of no use.")
class Prune(Request):
    """What nothing uses."""

    stack: str = flag(flags.STACK, default="", help="only what this stack left behind")
    yes: bool = flag(flags.YES)
    json: bool = flag(flags.JSON)


@verb("build", "Run", "Build the images.")
class Build(Request):
    """Build."""

    image: str = flag(flags.IMAGE)
    from_packages: bool = flag(flags.FROM_PACKAGES)
    push: str = flag(flags.PUSH)
    platform: tuple[str, ...] = flag(flags.PLATFORM)


@verb("cleanup", "Data", "Delete for good what users deleted.", module=("cleanup",))
class Cleanup(Request):
    """Rows and artifacts."""

    stack: str = flag(flags.STACK)
    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    artifacts_destination: str = flag(flags.ARTIFACTS_DESTINATION)
    registry_store_uri: str = flag(flags.REGISTRY_STORE_URI)
    older_than: str = flag(flags.OLDER_THAN)
    only: tuple[str, ...] = flag(flags.ONLY)
    run_ids: tuple[str, ...] = flag(flags.RUN_IDS)
    experiment_ids: tuple[str, ...] = flag(flags.EXPERIMENT_IDS)
    include_undated: bool = flag(flags.INCLUDE_UNDATED)
    force_registered: bool = flag(flags.FORCE_REGISTERED)
    orphan_grace: str = flag(flags.ORPHAN_GRACE)
    claim: bool = flag(flags.CLAIM)
    ignore_reference: tuple[str, ...] = flag(flags.IGNORE_REFERENCE)
    dry_run: bool = flag(flags.DRY_RUN)
    vacuum: bool = flag(flags.VACUUM)
    backup: bool = flag(flags.BACKUP_FIRST)
    to: str = flag(flags.TO, help="place of that backup: a folder, or s3://BUCKET/PREFIX", side="task")
    wait: float = flag(flags.WAIT)
    yes: bool = flag(flags.YES)
    json: bool = flag(flags.JSON)
    debug: bool = flag(flags.DEBUG)


@verb("usage", "Data", "Show who uses the space, by experiment.", module=("cleanup.usage",))
class Usage(Request):
    """Rows and bytes."""

    stack: str = flag(flags.STACK)
    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    artifacts_destination: str = flag(flags.ARTIFACTS_DESTINATION)
    top: int = flag(flags.TOP)
    html: str = flag(flags.HTML)
    json: bool = flag(flags.JSON)
    debug: bool = flag(flags.DEBUG)


@verb("migrate", "Data", "Migrate the schema, with a backup first.", module=("backups", "migrate"))
class Migrate(Request):
    """The schema to the head."""

    stack: str = flag(flags.STACK)
    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    registry_store_uri: str = flag(flags.REGISTRY_DATABASE)
    auth_database_uri: str = flag(flags.AUTH_DATABASE_URI)
    to: str = flag(flags.TO, help="folder of the backups")
    check: bool = flag(flags.CHECK)
    pg_command: str = flag(flags.PG_COMMAND)
    wait: float = flag(flags.WAIT)
    yes: bool = flag(flags.YES)
    json: bool = flag(flags.JSON)
    backup: str = flag(
        flags.BACKUP, help="a set of the database as it is now; no other is taken then", side="beside"
    )
    debug: bool = flag(flags.DEBUG)


@verb("backup", "Data", "Back up database, artifacts and keys, as one set.", module=("backups", "backup"))
class Backup(Request):
    """One set more."""

    stack: str = flag(flags.STACK)
    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    registry_store_uri: str = flag(flags.REGISTRY_DATABASE)
    auth_database_uri: str = flag(flags.AUTH_DATABASE_URI)
    artifacts_destination: str = flag(flags.ARTIFACTS_DESTINATION)
    to: str = flag(flags.TO)
    keep: int = flag(flags.KEEP)
    pg_command: str = flag(flags.PG_COMMAND)
    wait: float = flag(flags.WAIT)
    json: bool = flag(flags.JSON)
    include: tuple[str, ...] = flag(flags.INCLUDE)
    purpose: str = flag(flags.PURPOSE)
    debug: bool = flag(flags.DEBUG)


@verb("restore", "Data", "Put a verified backup back.", module=("backups", "restore"))
class Restore(Request):
    """All of it as it was."""

    backup: str = flag(flags.BACKUP, required=True)
    stack: str = flag(flags.STACK)
    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    registry_store_uri: str = flag(flags.REGISTRY_DATABASE)
    auth_database_uri: str = flag(flags.AUTH_DATABASE_URI)
    artifacts_destination: str = flag(flags.ARTIFACTS_DESTINATION)
    pg_command: str = flag(flags.PG_COMMAND)
    wait: float = flag(flags.WAIT)
    leave_out: tuple[str, ...] = flag(flags.LEAVE_OUT)
    no_backup: bool = flag(flags.NO_BACKUP)
    yes: bool = flag(flags.YES)
    json: bool = flag(flags.JSON)
    artifact_root: str = flag(flags.ARTIFACT_ROOT)
    keys_to: str = flag(flags.KEYS_TO)
    migrate: bool = flag(flags.MIGRATE)
    plan: bool = flag(flags.PLAN)
    shown: str = flag(flags.SHOWN)
    debug: bool = flag(flags.DEBUG)


@verb("backups", "Data", "List the backups.", module=("backups", "backups"))
class Backups(Request):
    """The sets of a place."""

    to: str = flag(flags.TO)
    verify: bool = flag(flags.VERIFY)
    json: bool = flag(flags.JSON)
    debug: bool = flag(flags.DEBUG)


@verb("upgrade", "Data", "Run another MLflow version, or put back all of it.")
class Upgrade(Request):
    """Newer or older."""

    to: str = flag(flags.VERSION)
    stack: str = flag(flags.STACK)
    backups: str = flag(flags.TO, name="backups", help="folder of the backups")
    yes: bool = flag(flags.YES)
    timeout: float = flag(flags.TIMEOUT, help="seconds to wait until the stack is ready with it")
    json: bool = flag(flags.JSON)


@verb("secrets-rotate", "Data", "Give a stack new passwords and keys.")
class SecretsRotate(Request):
    """New secrets."""

    stack: str = flag(flags.STACK)
    yes: bool = flag(flags.YES)
    timeout: float = flag(flags.TIMEOUT, help="seconds to wait until the restarted stack is ready")
    json: bool = flag(flags.JSON)


@verb("test", "Develop", "Run every test this machine can run.")
class Test(Request):
    """All tests."""

    require_docker: bool = flag(flags.REQUIRE_DOCKER)


@verb("test-unit", "Develop", "Run the tests that need no server.")
class TestUnit(Request):
    """Tests without a server."""


@verb("test-integration", "Develop", "Run the tests against real servers.")
class TestIntegration(Request):
    """Tests with servers."""

    require_docker: bool = flag(flags.REQUIRE_DOCKER)


@verb("bench", "Develop", "Run the benchmarks.")
class Bench(Request):
    """Benchmarks."""

    only: str = flag(flags.BENCHMARK)


@verb("lint", "Develop", "Check style, types and templates.")
class Lint(Request):
    """Checks."""


@verb("lock", "Develop", "Renew the locks of what is installed.")
class Lock(Request):
    """Locks."""

    upgrade: bool = flag(flags.UPGRADE)
    check: bool = flag(flags.CHECK, help="only hold them against their sources")


# No tasks: what stacks run beside the data by themselves.


@verb("prepare", "", "Create the schema of an empty database.", module=("database", "prepare"))
class Prepare(Request):
    """The step `schema` of every stack."""

    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    wait: float = flag(flags.WAIT, default=300.0)
    artifacts_destination: str = flag(flags.ARTIFACTS_DESTINATION)
    destination_alone: bool = flag(flags.DESTINATION_ALONE)
    server_wait: float = flag(flags.SERVER_WAIT)
    json: bool = flag(flags.JSON)
    debug: bool = flag(flags.DEBUG)


@verb("inspect", "", "Print schema, revisions and rows as JSON.", module=("database", "inspect"))
class Inspect(Request):
    """What the MLflow here makes of a database."""

    backend_store_uri: str = flag(flags.BACKEND_STORE_URI)
    debug: bool = flag(flags.DEBUG)
