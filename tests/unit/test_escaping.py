"""Whatever a setting or a path holds arrives in both engines' files as it is, or is refused before anything starts."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from supervisor.options import ServerOptions

from console import UserError
from stacks import catalogue
from stacks.definition import rendering, settings
from stacks.definition.settings import Settings
from tests.support.deployments import deployment

if TYPE_CHECKING:
    from stacks.definition.deployment import Deployment

ODD = [
    *("a b", "a?b", "a#b", "a %20x", "%20x", "a ;b", "a #b", 'a"b', "a'b", "'a'", " a", "a ", "\u00a0;x"),
    *("a\nb", "a\rb", "a\u2028b", "\ufffe", "\x00", "\x85", "\U0001f600", "x\n[program:x]\ncommand=touch /x"),
    *("$HOME", "${x}", "%(here)s", "{{ x }}", "a,b", "a=b", "[a]", "a:b", "a\\b", "0 3 31 2 *", "* * * * *"),
    *("127.0.0.1", "::1", "https://a$b%c.example"),
]
TEXT = st.one_of(st.sampled_from(ODD), st.text(max_size=12), st.text("ab ?#;%\"'\n$:,\\", max_size=6))
NAMES = sorted(Settings.model_fields)


def pieces(subject: Deployment, engine: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[Any]]:
    """The rendered text, and every value that went into it through a filter."""
    given_: list[Any] = []

    def watching(real: Any) -> Any:
        def filter_(value: Any) -> Any:
            given_.append(value)
            return real(value)

        return filter_

    with monkeypatch.context() as patch:
        for name in ("_compose_quoted", "_supervisor_argv", "_supervisor_env"):
            patch.setattr(rendering, name, watching(getattr(rendering, name)))
        [text] = rendering.render(subject, engine).values()
    return text, given_


def check_compose(subject: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    text, given_ = pieces(subject, "compose", monkeypatch)
    arrived: set[str] = set()

    def collect(node: Any) -> None:
        for value in node.values() if isinstance(node, dict) else node:
            if isinstance(value, (dict, list)):
                collect(value)
            else:
                arrived.add(str(value).replace("$$", "$"))

    collect(yaml.safe_load(text))
    assert {str(value) for value in given_} <= arrived
    assert list(yaml.safe_load(text)["services"]) == list(subject.services)


def check_host(subject: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    text, given_ = pieces(subject, "host", monkeypatch)
    with tempfile.TemporaryDirectory() as folder:  # supervisord wants the folders that it is told of
        place = Path(folder) / "supervisord.conf"
        place.write_text(text)
        options = ServerOptions()
        for name in ("options.existing_directory", "options.existing_dirpath", "datatypes.existing_dirpath"):
            monkeypatch.setattr(f"supervisor.{name}", lambda path: path)
        options.realize(["-c", str(place)])
    programs = [program for group in options.process_group_configs for program in group.process_configs]
    assert sorted(program.name for program in programs) == sorted(subject.services)
    assert {program.directory for program in programs} == {str(subject.state)}
    logs = {f"{subject.state}/logs/{program.name}.log" for program in programs}
    assert {program.stdout_logfile for program in programs} == logs
    words = [word for program in programs for word in shlex.split(program.command)]
    argv = [str(word) for value in given_ if isinstance(value, list) for word in value]
    assert sorted(words) == sorted(argv)
    environments = [
        {name: str(text) for name, text in value.items()} for value in given_ if isinstance(value, dict)
    ]
    for program in programs:
        environments.remove(program.environment)
    assert environments == []


def check(subject: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for look in (check_compose, check_host):
        try:
            look(subject, monkeypatch)
        except UserError as error:
            assert error.hints  # noqa: PT017 (refused, and says what to do)


FUZZ = limits(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(name=st.sampled_from(NAMES), text=TEXT)
@example(name="host", text="127.0.0.1\n[program:x]\ncommand=touch /x")
@example(name="cleanup_schedule", text="* * * * *")
@example(name="cors_allowed_origins", text="https://a$b%c.example")
def test_a_setting_arrives_as_it_is_or_is_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stack in ("local", "quickstart"):
        entry = catalogue.load(stack)
        try:
            merged = settings.load({**entry.settings, "workers": 2}, [f"{name}={text}"], surroundings=False)
        except UserError as error:
            assert error.hints  # noqa: PT017
            continue
        check(replace(deployment(stack), settings=merged), monkeypatch)


@FUZZ
@given(part=TEXT, which=st.sampled_from(["state", "root", "python"]))
def test_a_path_arrives_as_it_is_or_is_refused(
    part: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("/srv") / f"x{part}y" / "local"
    choices: dict[str, dict[str, Any]] = {
        "state": {
            "state": path,
            "socket": path / "supervisord.sock",
            "postgres_data": path / "data/postgres",
        },
        "root": {"root": path},
        "python": {"python": str(path), "mlflow_python": str(path)},
    }
    for stack in ("local", "quickstart"):
        check(replace(deployment(stack), **choices[which]), monkeypatch)


@pytest.mark.parametrize(
    "word",
    [
        *(
            "host=a b",
            "host=127.0.0.1\n[x]",
            "cors_allowed_origins=http://a b",
            "s3_region=eu\nwest",
            "state_dir=a\nb",
        ),
        *(
            "cleanup_schedule=0 3 31 2 *",
            "cleanup_schedule=61 * * * *",
            "cleanup_schedule=* * * *",
            "s3_secret_key=a\nb",
        ),
    ],
)
def test_what_no_file_could_hold_is_refused_by_name(word: str) -> None:
    with pytest.raises(UserError, match=f"setting '{word.partition('=')[0]}' cannot be"):
        settings.load({}, [word], surroundings=False)


@pytest.mark.parametrize("part", ["a b", "a#b", "a'b", "$x", "%20x", "a;b", "\U0001f600"])
def test_an_odd_path_can_be_used_where_its_stack_has_a_database_of_its_own(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("/srv") / part / "quickstart"
    subject = replace(deployment("quickstart"), state=path, root=path, socket=path / "supervisord.sock")
    check_compose(subject, monkeypatch)
    check_host(subject, monkeypatch)
