"""The settings of a stack: one frozen, typed object, and where its values come from.

Precedence, weakest first: default < stack file < the last `up` < ``.env`` < environment < ``--set KEY=VALUE``. In
``.env`` and in the environment a setting is written ``MLFLOW_STACKS_<NAME>``; ``.env.example`` documents every one of
them. What is read from the environment and is no setting stands in `flags.VARIABLES`; what one process of ours tells
another has the prefix ``_MLFLOW_STACKS_``.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from console import UserError
from flags import VARIABLES
from values import at_home, parse_age

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "MLFLOW_STACKS_"
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph separators
ROOT = Path(__file__).resolve().parents[2]


def _words(value: Any) -> Any:
    """A comma separated text as a tuple of its words."""
    return (
        tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value
    )


def _cron(text: str) -> str:
    """Refuse a schedule that cannot be read, or never comes."""
    if text:
        try:
            if len(text.split()) != 5:
                raise CronSimError
            next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError:
            raise ValueError("takes five cron fields, such as 30 3 * * *") from None
        except StopIteration:
            raise ValueError("is a time that never comes") from None
    return text


def _path(value: Any) -> Any:
    """Refuse a path that leads nowhere."""
    if not str(value).strip():
        raise ValueError("takes a path")
    at_home(str(value))
    return value


def _age(text: str) -> str:
    """Refuse what the verb would."""
    try:
        parse_age(text)
    except ValueError:
        raise ValueError("takes an age of 30 years at most, such as 30d") from None
    return text


def _address(text: str) -> str:
    """Refuse an address whose host or port is none."""
    try:
        parts = urlsplit(text)
        if text and not (parts.hostname and parts.port != 0):
            raise ValueError
    except ValueError:
        raise ValueError("takes the address of a server, such as https://s3.example.com:9000") from None
    return text


Location = Annotated[Path, BeforeValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[
    str, Field(pattern=r"^([0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?|[0-9A-Fa-f:]+(%[0-9A-Za-z]+)?)$")
]
Name = Annotated[str, Field(pattern=r"^[0-9A-Za-z_.*?:\[\]-]+$")]
Origin = Annotated[str, Field(pattern=r"^[^\s\"'\\;#?]+$")]
Url = Annotated[str, Field(pattern=r"^(https?://[^/\s\"'\\;#?]+)?$"), AfterValidator(_address)]
Size = Annotated[str, Field(pattern=r"^[0-9]+[kmg]$")]


class Settings(BaseModel):
    """Every setting of every stack; what each one does stands in ``.env.example``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Where it is reached
    host: Host = "127.0.0.1"
    port: Port = 5555
    allowed_hosts: Annotated[tuple[Name, ...], BeforeValidator(_words)] = ()
    cors_allowed_origins: Annotated[tuple[Origin, ...], BeforeValidator(_words)] = ()
    x_frame_options: Literal["SAMEORIGIN", "DENY", "NONE"] = "SAMEORIGIN"

    # The tracking server
    mlflow_version: str = ""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    job_execution: bool = False
    expose_prometheus: bool = False

    # Where it keeps things
    state_dir: Location = Path(".stacks")
    database: str = ""
    postgres_port: Port = 5557
    object_store: Literal["silo", "rustfs", "external"] = "silo"
    object_store_port: Port = 5558
    object_store_url: Url = ""
    s3_endpoint: Url = ""
    s3_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = "mlflow"
    s3_prefix: Annotated[
        str, Field(pattern=r"^[0-9A-Za-z_-][0-9A-Za-z_.-]*(/[0-9A-Za-z_-][0-9A-Za-z_.-]*)*$")
    ] = "artifacts"
    s3_region: Annotated[str, Field(pattern=r"^[0-9A-Za-z_.-]+$")] = "us-east-1"
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")

    # The AI gateway
    gateway: Literal["server", "standalone"] = "server"
    gateway_port: Port = 5556
    gateway_config: Location = Path("gateway.yaml")
    gateway_keys: Location = Path("gateway-keys")

    # Cleanup
    cleanup_schedule: Annotated[str, AfterValidator(_cron)] = ""
    cleanup_older_than: Annotated[str, AfterValidator(_age)] = "30d"

    # Containers
    memory_limit: Size = "1g"
    pids_limit: Annotated[int, Field(ge=32)] = 512
    log_max_size: Size = "10m"
    log_files: Annotated[int, Field(ge=1, le=100)] = 3

    @field_validator("*", mode="before")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        """Refuse what no file that is rendered, recorded or handed on could hold."""
        text = "".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if any(unicodedata.category(character) in UNPRINTABLE for character in text):
            raise ValueError("holds a line break or another control character")
        return value


def load(
    stack_settings: dict[str, Any],
    overrides: list[str] | None = None,
    *,
    recorded: Mapping[str, Any] | None = None,
    dotenv: Path = ROOT / ".env",
    surroundings: bool = True,
) -> Settings:
    """Merge every source of settings into one checked object.

    Args:
        stack_settings: the ``[settings]`` of the stack's file.
        overrides: ``KEY=VALUE`` words, as ``--set`` takes them.
        recorded: what the stack was last brought up with; what is no setting any more is left out.
        dotenv: the ``.env`` file; by default the one at the top of the checkout.
        surroundings: False leaves ``.env`` and the environment out (a deployment's record speaks for itself).

    Raises:
        UserError: an unknown setting, a value of the wrong type, or a line that cannot be read; says where.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source in (
        {name: (value, "the stack's file") for name, value in stack_settings.items()},
        {
            name: (value, "the last up (to forget it: invoke up --reset)")
            for name, value in (recorded or {}).items()
            if name in Settings.model_fields
        },
        _from_dotenv(dotenv) if surroundings else {},
        _from_environment() if surroundings else {},
        _from_overrides(overrides or []),
    ):
        for name, (value, origin) in source.items():
            if name not in Settings.model_fields:
                raise _unknown(name, origin)
            values[name] = value
            origins[name] = origin
    try:
        return Settings(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        field = Settings.model_fields[name]
        shown = "" if field.annotation is SecretStr or name == "database" else f" '{values[name]}'"
        raise UserError(
            f"setting '{name}' cannot be{shown}: {_said(problem['msg'])}",
            f"it was set by {origins[name]}",
            f"what it takes stands in .env.example, or try: invoke up --set {name}={as_text(name)}",
        ) from None


def _said(message: str) -> str:
    """What pydantic says, as one of our lines; what it quotes stays as it is."""
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def chosen(stack_settings: dict[str, Any], merged: Settings) -> dict[str, Any]:
    """What was chosen for a stack beyond its file, by name, in the form that JSON takes; no secret, and no place."""
    own = load(stack_settings, surroundings=False).model_dump(mode="json")
    known = merged.model_dump(
        mode="json", exclude={"s3_access_key", "s3_secret_key", "mlflow_version", "state_dir"}
    )
    return {name: value for name, value in known.items() if value != own[name]}


def changes(before: Settings, after: Settings) -> list[str]:
    """What differs between two settings of one stack, a line each; no secret, and no place."""
    return [
        f"setting '{name}': {_text(getattr(before, name))} becomes {_text(getattr(after, name))}"
        for name, field in Settings.model_fields.items()
        if name not in {"mlflow_version", "state_dir"}
        and field.annotation is not SecretStr
        and getattr(before, name) != getattr(after, name)
    ]


def as_text(name: str) -> str:
    """A setting's default as it is written in ``.env`` and after ``--set``."""
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return default.get_secret_value() if isinstance(default, SecretStr) else _text(default, empty="")


def _text(value: Any, empty: str = "(empty)") -> str:
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return (text.lower() if isinstance(value, bool) else text) or empty


def _unknown(name: str, origin: str) -> UserError:
    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return UserError(
        f"unknown setting '{name}', set by {origin}",
        *([f"did you mean: {near[0]}"] if near else []),
        "every setting stands in .env.example",
    )


def _from_dotenv(path: Path) -> dict[str, tuple[str, str]]:
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream

    given = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(
            f"cannot read {path}: {reason}", f"a line of that file reads {PREFIX}PORT=5555"
        ) from None
    with StringIO(text) as stream:
        for binding in parse_stream(stream):
            where = f"{path}, line {binding.original.line}"
            if binding.error or (binding.key is not None and binding.value is None):
                raise UserError(
                    f"cannot read {where}: {binding.original.string.strip()}",
                    f"a line of that file reads {PREFIX}PORT=5555",
                )
            if binding.key in VARIABLES:
                raise UserError(
                    f"{binding.key} is no setting of a stack, set by {where}",
                    f"it is read from the environment alone: export {binding.key}={binding.value}",
                )
            if binding.key is not None and binding.key.startswith(PREFIX):
                given[binding.key.removeprefix(PREFIX).lower()] = (binding.value or "", where)
    return {name: value for name, value in given.items() if value[0]}


def _from_environment() -> dict[str, tuple[str, str]]:
    return {
        key.removeprefix(PREFIX).lower(): (value, f"the environment variable {key}")
        for key, value in os.environ.items()
        if key.startswith(PREFIX) and value and key not in VARIABLES
    }


def _from_overrides(overrides: list[str]) -> dict[str, tuple[str, str]]:
    given = {}
    for word in overrides:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--set takes KEY=VALUE, not '{word}'", "for example: invoke up --set port=5557")
        given[name.strip().lower().replace("-", "_")] = (value, f"--set {word}")
    return given
