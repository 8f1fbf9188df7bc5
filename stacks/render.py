"""Rendering: a pure function from a deployment to the files its engine reads. Touches nothing."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stacks.settings import ROOT

if TYPE_CHECKING:
    from stacks.deployment import Deployment
    from stacks.settings import Settings

FRAMES = {"compose": "compose.yaml", "host": "supervisord.conf"}


def render(deployment: Deployment, engine: str) -> dict[str, str]:
    """The files of one deployment.

    Args:
        deployment: stack, settings and place.
        engine: ``compose`` or ``host``.

    Returns:
        File text by path relative to the state directory.
    """
    frame = FRAMES[engine]
    settings = deployment.settings
    stores = Stores.of(deployment, engine)
    text = _environment().get_template(f"{frame}.j2").render(
        backend_store_uri=stores.backend_store_uri,
        artifacts_destination=stores.artifacts_destination,
        deployment=deployment,
        settings=settings,
        services=deployment.stack.services,
        volumes=["mlflow-data", "mlflow-spool"],
        allowed_hosts=_allowed_hosts(settings),
        cors_allowed_origins=_cors_allowed_origins(settings),
        socket=deployment.socket,
        process_environment=process_environment(deployment),
    )
    return {frame: text}


@dataclass(frozen=True)
class Stores:
    """Where the tracking server keeps things.

    Attributes:
        backend_store_uri: its database.
        artifacts_destination: where artifacts go.
    """

    backend_store_uri: str
    artifacts_destination: str

    @classmethod
    def of(cls, deployment: Deployment, engine: str) -> Stores:
        """The stores as the processes of an engine reach them."""
        data = "/var/lib/mlflow" if engine == "compose" else f"{deployment.state}/data"
        return cls(f"sqlite:///{data}/mlflow.db", f"{data}/artifacts")


def process_environment(deployment: Deployment) -> dict[str, str]:
    """What every process of ours on the host engine needs to reach the stores."""
    stores = Stores.of(deployment, "host")
    return {
        "PYTHONPATH": str(deployment.root),
        "MLFLOW_BACKEND_STORE_URI": stores.backend_store_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": stores.artifacts_destination,
    }


def _allowed_hosts(settings: Settings) -> str:
    """Host headers that the tracking server answers, as MLFLOW_SERVER_ALLOWED_HOSTS takes them.

    The match includes the port, and is fnmatch's where the entry holds a star, where a bracket opens a character
    class (mlflow.server.security_utils.is_allowed_host_header): so each name is given twice.
    """
    names = ("localhost", "127.0.0.1", "[::1]", "mlflow", *settings.allowed_hosts)
    return ",".join(form for name in names for form in (name, f"{name.replace('[', '[[]')}:*"))


def _cors_allowed_origins(settings: Settings) -> str:
    """Origins whose browsers may change something: the UI's own at every allowed host, and those that are set."""
    own = (f"http://{name}:{settings.port}" for name in settings.allowed_hosts)
    return ",".join(("http://mlflow:5000", *own, *settings.cors_allowed_origins))


def _environment() -> Environment:
    environment = Environment(  # noqa: S701 (YAML and INI, not HTML)
        loader=FileSystemLoader(ROOT / "stacks" / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _compose_quoted
    environment.filters["argv"] = _supervisor_argv
    environment.filters["env"] = _supervisor_env
    environment.filters["percent"] = _percent
    return environment


def _compose_quoted(value: object) -> str:
    """A YAML double-quoted string in which Compose interpolates nothing."""
    return json.dumps(str(value).replace("$", "$$"))


def _percent(value: object) -> str:
    """Supervisor expands %(name)s in every value."""
    return str(value).replace("%", "%%")


def _supervisor_argv(words: list[object]) -> str:
    """An argv list as supervisor's ``command=`` splits it again (shlex)."""
    return _percent(shlex.join(str(word) for word in words))


def _supervisor_env(variables: dict[str, object]) -> str:
    """Variables as supervisor's ``environment=`` reads them; a value must not hold a double quote."""
    return ",".join(f'{name}="{_percent(value)}"' for name, value in variables.items())
