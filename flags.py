"""Every flag once: name, what it takes, default, help. `verbs.py` says which verb has which.

A new flag is a constant here and a field of a verb there; the task, its ``--help``, the command line beside the data
and docs/reference.md follow.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import values
from console import UsageError
from values import Kind

BACKUPS = "MLFLOW_STACKS_BACKUPS"
PG_COMMAND_VARIABLE = "MLFLOW_STACKS_PG_COMMAND"
PG_BIN_VARIABLE = "MLFLOW_STACKS_PG_BIN"
VARIABLES = {
    BACKUPS: "the place of backups where no --to is given",
    PG_COMMAND_VARIABLE: "as --pg-command",
    PG_BIN_VARIABLE: "the folder of PostgreSQL's programs (pg_dump, pg_restore, psql)",
}
"""What a user may export and what is no setting of a stack."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: as it is typed, without dashes.
        kind: what it takes.
        help: one line, lower case, no full stop, without the default.
        default: what a verb has that was not given it; None stands for the kind's own.
        required: it has no default.
        repeatable: it may be given again; its value is a tuple.
        choices: the values there are; of a list, its words.
        short: its one letter, which means the same in every verb.
        variable: the environment variable that gives its default, for tasks and beside the data.
        server_variable: the tracking server's own variable, which gives its default beside the data alone.
        side: where it exists: ``task`` alone, ``beside`` the data alone, or both.
        instead_of: a flag that is typed with it by nobody who means both.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    required: bool = False
    repeatable: bool = False
    choices: tuple[str, ...] = ()
    short: str = ""
    variable: str = ""
    server_variable: str = ""
    side: Literal["both", "task", "beside"] = "both"
    instead_of: str = ""

    @property
    def attribute(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")

    @property
    def empty(self) -> Any:
        """What it has when it is not given."""
        if self.default is not None:
            return self.default
        return () if self.repeatable else self.kind.empty

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return self.kind == values.SWITCH

    @property
    def spelled(self) -> str:
        """How it is typed: ``--wait=SECONDS``."""
        return f"--{self.name}" if self.switch else f"--{self.name}={self.metavar}"

    @property
    def metavar(self) -> str:
        """The word that stands for its value."""
        return "|".join(self.choices) if self.choices and self.kind != values.WORDS else self.kind.metavar

    @property
    def explained(self) -> str:
        """Its help with its default and the variable that gives one."""
        notes = []
        if self.required:
            notes.append("required")
        if type(self.empty) in {int, float} or self.empty:
            shown = f"{self.empty:g}" if isinstance(self.empty, float) else str(self.empty)
            notes.append(f"default: {shown}")
        if self.variable:
            notes.append(f"or {self.variable}")
        return f"{self.help} ({'; '.join(notes)})" if notes else self.help

    def parse(self, given: str) -> Any:
        """Return the value of a text.

        Raises:
            UsageError: it means nothing.
        """
        try:
            value = self.kind.parse(given)
        except ValueError:
            raise self._wrong(given, self.kind.takes, self.kind.example) from None
        for word in (value if isinstance(value, tuple) else (value,)) if self.choices else ():
            if word not in self.choices:
                few = "some" if self.kind == values.WORDS else "one"
                raise self._wrong(word, f"{few} of {', '.join(self.choices)}")
        return value

    def _wrong(self, given: str, takes: str, example: str = "") -> UsageError:
        hints = [f"for example: --{self.name}={example}"] if example else []
        return UsageError(f"--{self.name} takes {takes}, not {given!r}", *hints)


def flag(given: Flag, **changes: Any) -> Any:
    """A field of a verb: the flag, with what differs in this verb (``default``, ``help``)."""
    return dataclasses.replace(given, **changes) if changes else given


STACK = Flag(
    "stack",
    values.text("NAME", "the name of a stack", "quickstart"),
    "the stack to work on; `invoke stacks` lists them",
    default="local",
    short="s",
    side="task",
)
JSON = Flag("json", values.SWITCH, "print one JSON object and nothing else", short="j")
YES = Flag("yes", values.SWITCH, "answer the question with yes", short="y")
DRY_RUN = Flag("dry-run", values.SWITCH, "show the plan and change nothing", short="n")
DEBUG = Flag("debug", values.SWITCH, "show the traceback of an error", side="beside")

ENGINE = Flag(
    "engine",
    values.text("ENGINE", "an engine"),
    "what runs it; auto is compose where Docker answers, else host",
    default="auto",
    choices=("auto", "compose", "host"),
)
SET = Flag(
    "set",
    values.text("KEY=VALUE", "KEY=VALUE", "port=5557", r"(?s)\s*[A-Za-z0-9_-]+\s*=.*"),
    "a setting for this run; may be given again",
    repeatable=True,
)
RESET = Flag("reset", values.SWITCH, "forget the settings that the stack was last brought up with")
TIMEOUT = Flag("timeout", values.SECONDS, "seconds to wait until all of it is ready", default=180.0)
VOLUMES = Flag("volumes", values.SWITCH, "remove the data too, after a question")
SERVICE = Flag(
    "service", values.text("NAME", "the name of a service", "mlflow"), "one service instead of all"
)
FOLLOW = Flag("follow", values.SWITCH, "go on until Ctrl-C")
TAIL = Flag("tail", values.LINES, "lines to begin with", default=100)
OUTPUT = Flag(
    "output", values.path("FOLDER", "a folder"), "folder to write the files to, instead of printing them"
)

BACKEND_STORE_URI = Flag(
    "backend-store-uri",
    values.text("URI", "the URI of a database", "sqlite:////PATH/mlflow.db"),
    "a database that belongs to no stack of this checkout",
    server_variable="MLFLOW_BACKEND_STORE_URI",
    instead_of="stack",
)
ARTIFACTS_DESTINATION = Flag(
    "artifacts-destination",
    values.ANYTHING,
    "where that database's artifacts are",
    server_variable="MLFLOW_ARTIFACTS_DESTINATION",
)
REGISTRY_STORE_URI = Flag(
    "registry-store-uri",
    values.text("URI", "the URI of a database", "sqlite:////PATH/registry.db"),
    "the database of the registered models, where it is another one: what they need stays",
    server_variable="MLFLOW_REGISTRY_STORE_URI",
)
REGISTRY_DATABASE = dataclasses.replace(
    REGISTRY_STORE_URI, help="the database of the registered models, where it is another one"
)
AUTH_DATABASE_URI = Flag(
    "auth-database-uri",
    values.text("URI", "the URI of a database", "sqlite:////PATH/basic_auth.db"),
    "the database of basic auth, where it is another one; else what MLFLOW_AUTH_CONFIG_PATH names",
)
LEAVE_OUT = Flag(
    "leave-out", values.WORDS, "databases that stay in the set: registry,auth", choices=("registry", "auth")
)
WAIT = Flag(
    "wait",
    values.SECONDS,
    "seconds to wait for another migrate, cleanup, backup or restore of the same database",
    default=0.0,
)
PG_COMMAND = Flag(
    "pg-command",
    values.text("COMMAND", "a command", "'docker compose exec -T postgres'"),
    "run pg_dump, pg_restore and psql through this command; for a database of no stack",
    variable=PG_COMMAND_VARIABLE,
)
TO = Flag(
    "to",
    values.path(
        "PLACE",
        "the place of backups, a folder or s3://BUCKET/PREFIX",
        "s3://our-backups/mlflow",
        address="s3://.*",
    ),
    "place of the backups: a folder, or s3://BUCKET/PREFIX",
    default="backups",
    variable=BACKUPS,
)

OLDER_THAN = Flag("older-than", values.AGE, "only what was deleted this long ago: 30m, 12h, 30d")
ONLY = Flag(
    "only",
    values.WORDS,
    "some of runs,experiments,models,traces,jobs,orphans; without it all but traces and jobs",
    choices=("runs", "experiments", "models", "traces", "jobs", "orphans"),
)
RUN_IDS = Flag("run-ids", values.IDS, "exactly these runs, with commas between")
EXPERIMENT_IDS = Flag("experiment-ids", values.NUMBERS, "exactly these experiments, with commas between")
INCLUDE_UNDATED = Flag("include-undated", values.SWITCH, "also what has no deletion time")
FORCE_REGISTERED = Flag(
    "force-registered", values.SWITCH, "also the files that a registered model version needs"
)
ORPHAN_GRACE = Flag("orphan-grace", values.AGE, "least age of orphaned artifacts", default="1d")
CLAIM = Flag(
    "claim",
    values.SWITCH,
    "mark the artifact destination as this database's alone: only there are orphaned artifacts deleted",
)
IGNORE_REFERENCE = Flag(
    "ignore-reference",
    values.text("TABLE.COLUMN", "TABLE.COLUMN", "notes.run_uuid", r"[^\s.]+\.[^\s.]+"),
    "a column that may keep ids that are gone; may be given again",
    repeatable=True,
)
VACUUM = Flag("vacuum", values.SWITCH, "give the space back to the system; locks tables meanwhile")

TOP = Flag("top", values.COUNT, "the N largest experiments", default=20)
HTML = Flag("html", values.path("FILE", "a file", "usage.html"), "write a page with a chart")

CHECK = Flag("check", values.SWITCH, "only report; exit 0 when current, else 1")
KEEP = Flag("keep", values.COUNT, "how many sets of this database to keep", default=7)
BACKUP = Flag(
    "backup",
    values.path(
        "SET",
        "a backup set, a folder or s3://BUCKET/PREFIX/SET",
        "backups/latest",
        address="s3://[^/]+/+[^/].*",
    ),
    "folder of the set, or its s3:// address; .../latest is the newest one there",
)
BACKUP_FIRST = Flag("backup", values.SWITCH, "take a backup first, after the question", side="task")
VERIFY = Flag("verify", values.SWITCH, "read every byte of every set")
VERSION = Flag(
    "to",
    values.text("VERSION", "a version of MLflow", "3.17.2"),
    "the version to run, newer or older, such as 3.17.2",
    required=True,
)

# What one process of ours tells another beside the data.
INCLUDE = Flag("include", values.text("FILE", "a file"), "a key file", repeatable=True, side="beside")
PURPOSE = Flag("purpose", values.text("WORD", "a word"), "for the manifest", default="backup", side="beside")
ARTIFACT_ROOT = Flag(
    "artifact-root",
    values.text("URI", "a URI", "mlflow-artifacts:/"),
    "how rows shall name artifacts that have moved: mlflow-artifacts:/ where a server serves them",
    side="beside",
)
PLAN = Flag("plan", values.SWITCH, "print the plan as JSON and change nothing", side="beside")
SHOWN = Flag(
    "shown",
    values.text("FINGERPRINT", "a fingerprint"),
    "of the plan that was agreed to; with another one nothing is done",
    side="beside",
)
NO_BACKUP = Flag("no-backup", values.SWITCH, "do not back up first what will be replaced")
KEYS_TO = Flag("keys-to", values.text("FOLDER", "a folder"), "where the set's key files go", side="beside")
MIGRATE = Flag(
    "migrate",
    values.SWITCH,
    "then bring a schema that is behind to that of this MLflow",
    side="beside",
)
DESTINATION_ALONE = Flag(
    "destination-alone",
    values.SWITCH,
    "no other database keeps its artifacts in the destination",
    side="beside",
)
SERVER_WAIT = Flag(
    "server-wait",
    values.SECONDS,
    "seconds to wait for a database server that does not let us in yet",
    default=0.0,
    side="beside",
)

IMAGE = Flag("image", values.text("NAME", "the name of an image", "mlflow"), "one image instead of all")
FROM_PACKAGES = Flag(
    "from-packages",
    values.SWITCH,
    "make every image, bases included, from package mirrors; no container registry is asked",
)
PUSH = Flag("push", values.text("REGISTRY", "a registry"), "registry to push what was built to")
PLATFORM = Flag(
    "platform",
    values.text("PLATFORM", "a platform", "linux/arm64"),
    "platform to build for, such as linux/arm64; may be given again",
    repeatable=True,
)
REQUIRE_DOCKER = Flag(
    "require-docker", values.SWITCH, "fail where a test cannot run because no Docker engine answers"
)
BENCHMARK = Flag("only", values.text("NAME", "the name of a benchmark"), "one benchmark by name")
UPGRADE = Flag("upgrade", values.SWITCH, "take newer versions where they are allowed")

# What a stack tells the programs that it starts; passwords and keys are in files.
HOST = Flag("host", values.text("ADDRESS", "an address", "127.0.0.1"), "address to listen on", side="beside")
PORT = Flag("port", values.PORT, "port to listen on", side="beside")
PASSWORD_FILE = Flag("password-file", values.FILE, "file with the password", required=True, side="beside")
GATEWAY_CONFIG = Flag(
    "config",
    values.FILE,
    "gateway.yaml; none, or one that is not there: no endpoints",
    server_variable="MLFLOW_GATEWAY_CONFIG",
    side="beside",
)
GATEWAY_SECRETS = Flag(
    "secrets",
    values.FOLDER,
    "folder of the provider keys, one file each",
    server_variable="_MLFLOW_STACKS_GATEWAY_SECRETS",
    side="beside",
)
