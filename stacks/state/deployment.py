"""A deployment: one stack with its settings at its place on this machine, and what it remembers there."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from console import UserError
from files import file_lock, write_if_changed
from stacks import catalogue
from stacks.definition import settings
from stacks.definition.services import SERVICES
from stacks.definition.settings import ROOT, Settings
from stacks.state import environments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stacks.catalogue import Stack

RECORD = "stack.json"
JOURNAL = "upgrade.json"  # of an upgrade that has not ended (stacks.verbs.upgrade)
ROTATION = Path("secrets/rotation")  # new secrets that are not everywhere in use yet (stacks.verbs.rotation)
SYSTEM_STATE = Path("/var/lib/mlflow-stacks")


@dataclass(frozen=True)
class Deployment:
    """What rendering and the engines work on.

    Attributes:
        stack: the entry of the catalogue.
        settings: the merged settings.
        state: absolute path of this stack's state directory.
        project: name that tells this stack of this checkout from every other on the machine.
        root: absolute path of the checkout (processes of the host engine import from it).
        python: the interpreter that the host engine runs.
        mlflow_version: of the MLflow that this stack runs.
        images: image reference by image name (compose engine).
        given_secrets: secrets that the user gave through settings, by name of the secret.
        generation: how often the secrets were rotated; counts one that was begun.
        system: whether root runs it.
        gateway_digest: changes whenever gateway.yaml or a provider key does.
    """

    stack: Stack
    settings: Settings
    state: Path
    project: str
    root: Path = ROOT
    python: str = sys.executable
    mlflow_version: str = field(default_factory=environments.pinned)
    images: dict[str, str] | None = None
    given_secrets: dict[str, str] = field(default_factory=dict, repr=False)
    generation: int = 0
    system: bool = False
    gateway_digest: str = ""

    @property
    def name(self) -> str:
        """The stack's name."""
        return self.stack.name

    @property
    def socket(self) -> Path:
        """Supervisord's control socket; elsewhere where the state directory's path is too long for one (unix(7))."""
        path = self.state / "supervisord.sock"
        return (
            path
            if len(bytes(path)) < 100
            else Path(tempfile.gettempdir()) / f"{self.project}-{os.getuid()}.sock"
        )

    @property
    def services(self) -> tuple[str, ...]:
        """The services that run with these settings, in start order; what an external store needs comes first."""
        wanted = [name for name in self.stack.services if SERVICES[name].wanted(self.settings, self.stack)]
        return tuple(sorted(wanted, key=lambda name: not SERVICES[name].checks_external(self.settings)))

    @property
    def gateway_base_url(self) -> str | None:
        """The base URL that an OpenAI client takes, where there is a gateway."""
        if "gateway" in self.services:
            return f"{SERVICES['gateway'].url(self.settings)}/v1"
        return (
            f"{SERVICES['mlflow'].url(self.settings)}/gateway/mlflow/v1"
            if "gateway-sync" in self.services
            else None
        )

    @property
    def mlflow_python(self) -> str:
        """The interpreter that finds this stack's MLflow (host engine)."""
        if self.mlflow_version == environments.installed():
            return self.python
        return str(environments.folder(self.state) / self.mlflow_version / "bin" / "python")

    @property
    def postgres_data(self) -> Path:
        """PostgreSQL's cluster on the host engine; root's lies where the user that PostgreSQL runs as gets to it."""
        return SYSTEM_STATE / self.project / "postgres" if self.system else self.state / "data" / "postgres"

    @property
    def workers(self) -> int:
        """Worker processes of the tracking server."""
        return self.settings.workers or min(4, os.cpu_count() or 1)

    def record(self) -> dict[str, Any]:
        """What the state directory remembers of the last `up`; empty when there was none.

        Raises:
            UserError: the record is not readable as JSON.
        """
        path = self.state / RECORD
        try:
            return dict(json.loads(path.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (json.JSONDecodeError, OSError) as error:
            raise UserError(
                f"the record of the last up cannot be read: {error}",
                f"it is {path}",
                f"write it anew: invoke up --stack={self.name}",
            ) from None

    def remember(self, engine: str, *, secrets: Iterable[str]) -> None:
        """Write the record: engine, images, names of the secrets made so far, settings that are not the default."""
        record = {
            "stack": self.name,
            "engine": engine,
            "project": self.project,
            "generation": self.generation,
            "mlflow_version": self.mlflow_version,
            "images": self.images or {},
            "secrets": sorted({*secrets, *self.record().get("secrets", [])}),
            "settings": self.settings.model_dump(
                mode="json",
                exclude_defaults=True,
                exclude={"s3_access_key", "s3_secret_key", "mlflow_version"},
            ),
        }
        write_private(self.state / RECORD, json.dumps(record, indent=2) + "\n")

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Hold this stack's lock, so that two of us never change it at once; a killed holder leaves none.

        Raises:
            UserError: somebody else holds it (says who and since when), the directory cannot be written, or an upgrade
                was cut off that `up` has to put back first.
        """
        make_private_dir(self.state)
        if (self.state / JOURNAL).exists() and purpose not in {"up", "down", "upgrade"}:
            raise UserError(
                f"an upgrade of stack '{self.name}' was cut off",
                f"put back what ran before it: invoke up --stack={self.name}",
            )

        def refusal(who: str) -> UserError:
            return UserError(
                f"stack '{self.name}' is being changed: its lock is {who}",
                "wait for it to end, then type the same command again",
            )

        with file_lock(self.state / "lock", f"invoke {purpose}", refusal):
            yield


def open_deployment(
    stack_name: str, overrides: list[str] | None = None, *, recorded: bool = False
) -> Deployment:
    """Find a stack, merge its settings and name its place.

    Args:
        stack_name: what ``--stack`` says.
        overrides: ``KEY=VALUE`` words of ``--set``.
        recorded: take the settings of the last `up` where there was one, so that `status`, `down` and their like
            speak of what runs, whatever ``--set`` it was started with.

    Raises:
        UserError: an unknown stack or a wrong setting.
    """
    stack = catalogue.load(stack_name)
    merged, given_secrets = _without_secrets(settings.load(stack.settings, overrides))
    deployment = Deployment(
        stack=stack,
        settings=merged,
        state=(ROOT / merged.state_dir.expanduser() / stack.name).absolute(),
        project=_project(stack.name, ROOT / merged.state_dir.expanduser()),
        given_secrets=given_secrets,
        system=os.geteuid() == 0,
    )
    record = deployment.record()
    version = str(record.get("mlflow_version", "")) or ("" if record else merged.mlflow_version)
    deployment = replace(
        deployment, generation=_generation(deployment), mlflow_version=version or environments.pinned()
    )
    if recorded and (known := record.get("settings")) is not None:
        last = settings.load({**stack.settings, **known}, surroundings=False)
        deployment = replace(deployment, settings=last)
    return deployment


def _generation(deployment: Deployment) -> int:
    begun = deployment.state / ROTATION / "generation"
    return int(begun.read_text()) if begun.exists() else int(deployment.record().get("generation", 0))


def _without_secrets(merged: Settings) -> tuple[Settings, dict[str, str]]:
    """Take the secrets out of the settings, so that nothing rendered or recorded can hold one."""
    found = {
        "object-store-key": merged.s3_access_key.get_secret_value(),
        "object-store-secret": merged.s3_secret_key.get_secret_value(),
    }
    blank = {"s3_access_key": SecretStr(""), "s3_secret_key": SecretStr("")}
    if merged.database:
        from database.connection import normalize

        uri = normalize(merged.database)
        if uri.get_backend_name() != "postgresql":
            raise UserError(
                "the setting 'database' takes a PostgreSQL URI",
                "for example: postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE",
            )
        found["database-password"] = uri.password or ""
        uri = uri._replace(password=None)  # URL.set takes None for "as it was"
        return merged.model_copy(update={**blank, "database": str(uri)}), {
            k: v for k, v in found.items() if v
        }
    return merged.model_copy(update=blank), {name: value for name, value in found.items() if value}


def _project(stack_name: str, state_dir: Path) -> str:
    """A second checkout, or a second state directory, is a second project."""
    return f"{stack_name}-{hashlib.sha256(str(state_dir.absolute()).encode()).hexdigest()[:6]}"


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
