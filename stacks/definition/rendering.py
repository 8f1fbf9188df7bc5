"""Rendering: a pure function from a deployment to the files its engine reads. Touches nothing."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from console import UserError
from stacks.definition.services import SERVICES, reachable
from stacks.definition.settings import ROOT, UNPRINTABLE

if TYPE_CHECKING:
    from stacks.definition.deployment import Deployment
    from stacks.definition.settings import Settings

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
    context: dict[str, Any] = {
        "deployment": deployment,
        "settings": deployment.settings,
        "services": deployment.services,
        "stores": Stores.of(deployment, engine),
        "allowed_hosts": partial(_allowed_hosts, deployment.settings),
        "published": f"[{deployment.settings.host}]"
        if ":" in deployment.settings.host
        else deployment.settings.host,
        "server_url": SERVICES["mlflow"].url(deployment.settings),
        "cors_allowed_origins": _cors_allowed_origins(deployment.settings),
        "max_connections": CONNECTIONS_PER_WORKER * deployment.workers + SPARE_CONNECTIONS,
        "declared": {},
    }
    template = _environment().get_template(f"{frame}.j2")
    if engine == "compose":
        context["declared"] = _declared(template.render(context))
    return {frame: template.render(context)}


def secrets_named(files: dict[str, str]) -> set[str]:
    """The secrets that rendered files name, which must be there before an engine reads the files."""
    return {name for text in files.values() for name in re.findall(r"/secrets/([a-z][a-z-]*)", text)}


def _declared(text: str) -> dict[str, list[str]]:
    """The volumes, secrets and networks that the services of a Compose file name: each has to be declared."""
    services = yaml.safe_load(text)["services"].values()
    mounts = [mount for service in services for mount in service.get("volumes", ())]
    return {
        "volumes": sorted({mount.partition(":")[0] for mount in mounts if isinstance(mount, str)}),
        "secrets": sorted({secret for service in services for secret in service.get("secrets", ())}),
        "networks": sorted({network for service in services for network in service["networks"]}),
    }


# The server's thread pool has 40 threads a worker, and a request may hold two connections: less deadlocks under load.
# The tracking, registry and job stores have a pool each, which keep 20 open, but share those threads.
POOL_SIZE = 20
MAX_OVERFLOW = 60
CONNECTIONS_PER_WORKER = POOL_SIZE + MAX_OVERFLOW + 2 * POOL_SIZE
CONTAINER_PGPASS = "/tmp/pgpass"  # noqa: S108 (a tmpfs of the container's own)
SPARE_CONNECTIONS = 20  # for maintenance, psql and the superuser


@dataclass(frozen=True)
class Stores:
    """Where the tracking server keeps things, as the processes of one engine reach it.

    Attributes:
        backend_store_uri: its database; the password is not in it.
        artifacts_destination: where artifacts go.
        environment: variables that every process that opens the stores needs.
        secrets: the secret files that those variables name.
    """

    backend_store_uri: str
    artifacts_destination: str
    environment: dict[str, str]
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, deployment: Deployment, engine: str) -> Stores:
        """The stores of a deployment."""
        settings = deployment.settings
        in_container = engine == "compose"
        data = "/var/lib/mlflow" if in_container else f"{deployment.state}/data"
        environment: dict[str, str] = {}
        secrets: list[str] = []
        if "postgres" in deployment.services or settings.database:
            address = "postgres:5432" if in_container else f"127.0.0.1:{settings.postgres_port}"
            uri = settings.database or f"postgresql+psycopg2://mlflow@{address}/mlflow"
            environment["PGPASSFILE"] = (
                CONTAINER_PGPASS if in_container else f"{deployment.state}/secrets/pgpass"
            )
            environment["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] = str(POOL_SIZE)
            environment["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"] = str(MAX_OVERFLOW)
            secrets.append("pgpass")
        else:
            uri = _sqlite(f"{data}/mlflow.db")
        destination = f"{data}/artifacts"
        if "bucket" in deployment.services:
            destination = f"s3://{settings.s3_bucket}/{settings.s3_prefix}"
            folder = "/run/secrets" if in_container else f"{deployment.state}/secrets"
            environment["AWS_SHARED_CREDENTIALS_FILE"] = f"{folder}/object-store-credentials"
            environment["AWS_DEFAULT_REGION"] = settings.s3_region
            if endpoint := _object_store_endpoint(deployment, in_container=in_container):
                environment["MLFLOW_S3_ENDPOINT_URL"] = endpoint
            if settings.object_store_url:
                environment["_MLFLOW_STACKS_PRESIGNED"] = "true"
            secrets.append("object-store-credentials")
        environment |= {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_ARTIFACTS_DESTINATION": destination}
        return cls(uri, destination, environment, tuple(secrets))


def _sqlite(path: str) -> str:
    """The address of a SQLite database.

    Raises:
        UserError: SQLAlchemy would take a part of the path for something else, or MLflow make a folder that is not it
            (mlflow.store.db.utils._make_parent_dirs_if_sqlite reads the address as it is).
    """
    if set(path) & set("?%"):
        raise UserError(
            f"a SQLite database cannot lie at {path}: there is a '?' or a '%' in its path",
            "keep the state of this stack elsewhere: invoke up --set state_dir=DIR",
        )
    return f"sqlite:///{path}"


def _object_store_endpoint(deployment: Deployment, *, in_container: bool) -> str:
    settings = deployment.settings
    if settings.object_store == "external":
        return settings.s3_endpoint
    if settings.object_store_url:
        return settings.object_store_url
    return "http://object-store:9000" if in_container else f"http://127.0.0.1:{settings.object_store_port}"


def process_environment(deployment: Deployment) -> dict[str, str]:
    """What every process of ours on the host engine needs to reach the stores."""
    return {"PYTHONPATH": str(deployment.root), **Stores.of(deployment, "host").environment}


def _allowed_hosts(settings: Settings, service: str) -> str:
    """Host headers that a service answers, as MLFLOW_SERVER_ALLOWED_HOSTS takes them.

    The match includes the port, and is fnmatch's where the entry holds a star, where a bracket opens a character
    class (mlflow.server.security_utils.is_allowed_host_header): so each name is given twice.
    """
    names = dict.fromkeys(
        ("localhost", "127.0.0.1", "[::1]", service, *_own(settings), *settings.allowed_hosts)
    )
    return ",".join(form for name in names for form in (name, f"{name.replace('[', '[[]')}:*"))


def _own(settings: Settings) -> tuple[str, ...]:
    """The address of the setting 'host', where it is another one than every server answers to."""
    name = reachable(settings.host)
    return () if name in {"localhost", "127.0.0.1", "[::1]"} else (name,)


def _cors_allowed_origins(settings: Settings) -> str:
    """Origins whose browsers may change something: the UI's own at every allowed host, and those that are set."""
    own = (f"http://{name}:{settings.port}" for name in (*_own(settings), *settings.allowed_hosts))
    return ",".join(("http://mlflow:5000", *own, *settings.cors_allowed_origins))


def _environment() -> Environment:
    environment = Environment(  # noqa: S701 (YAML and INI, not HTML)
        loader=FileSystemLoader(ROOT / "stacks" / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
    )
    environment.globals["process_environment"] = process_environment
    environment.filters["quoted"] = _compose_quoted
    environment.filters["argv"] = _supervisor_argv
    environment.filters["json"] = json.dumps
    environment.filters["env"] = _supervisor_env
    environment.filters["percent"] = _percent
    return environment


def _compose_quoted(value: object) -> str:
    """A YAML double-quoted string in which Compose interpolates nothing."""
    return json.dumps(_printable(str(value)).replace("$", "$$"), ensure_ascii=False)


def _printable(text: str) -> str:
    """A value without control characters, which neither engine's file could hold.

    Raises:
        UserError: it has some, or is not Unicode.
    """
    if any(
        unicodedata.category(character) in UNPRINTABLE or character in "\ufffe\uffff" for character in text
    ):
        raise UserError(
            f"{text!r} holds a line break or another character that does not print",
            "it is the value of a setting, or the path of this checkout, its Python or the state directory",
        )
    return text


def _ini(value: object) -> str:
    """A value of supervisord's configuration, before `%`.

    Its parser cuts white space at the ends, and whatever follows a semicolon or a hash after white space, and there is
    no way to escape them (supervisor.options.UnhosedConfigParser, 4.3).

    Raises:
        UserError: the value would not be read back as it is.
    """
    text = _printable(str(value))
    if re.search(r"\s[;#]", text) or text != text.strip():
        raise _not_for_supervisord(text, "white space before ';', '#' or an end")
    return text


def _not_for_supervisord(text: str, what: str) -> UserError:
    return UserError(
        f"supervisord cannot be given {text!r}: it holds {what}",
        "it is the value of a setting, or the path of this checkout, its Python or the state directory",
        "take another name or value",
    )


def _percent(value: object) -> str:
    """Supervisor expands %(name)s in every value; the path of a program's log even twice."""
    return _ini(value).replace("%", "%%")


def _supervisor_argv(words: list[object]) -> str:
    """An argv list as supervisor's ``command=`` splits it again (shlex)."""
    return _percent(shlex.join(str(word) for word in words))


def _supervisor_env(variables: dict[str, object]) -> str:
    """Variables as supervisor's ``environment=`` reads them: in double quotes, and stripped of quotes at both ends.

    Raises:
        UserError: a value holds a double quote, or a single one at an end.
    """
    for value in map(str, variables.values()):
        if '"' in value or value != value.strip("'"):
            raise _not_for_supervisord(value, "a double quote, or a single one at an end")
    return ",".join(f'{name}="{_percent_inside(value)}"' for name, value in variables.items())


def _percent_inside(value: object) -> str:
    """As `_percent`, for what stands in quotes."""
    return _percent(f'"{value}"')[1:-1]
