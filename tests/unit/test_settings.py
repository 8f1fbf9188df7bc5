"""Where settings come from, which source wins, and what a wrong one is told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

import flags
from console import UserError
from stacks.definition import settings
from stacks.definition.settings import PREFIX, ROOT, Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_each_source_of_settings_is_stronger_than_the_one_before(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [settings.load({}, dotenv=dotenv).port]
    seen.append(settings.load({"port": 1001}, dotenv=dotenv).port)
    dotenv.write_text(f"{PREFIX}PORT=1002\n")
    seen.append(settings.load({"port": 1001}, dotenv=dotenv).port)
    monkeypatch.setenv(f"{PREFIX}PORT", "1003")
    seen.append(settings.load({"port": 1001}, dotenv=dotenv).port)
    seen.append(settings.load({"port": 1001}, ["port=1004"], dotenv=dotenv).port)
    assert seen == [5555, 1001, 1002, 1003, 1004]


def test_a_record_speaks_for_itself(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "1003")
    assert settings.load({"port": 1001}, dotenv=dotenv, surroundings=False).port == 1001


@pytest.mark.parametrize("name", flags.VARIABLES)
def test_a_variable_that_is_no_setting_is_taken_from_the_environment_alone(
    name: str, dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "something")
    settings.load({}, dotenv=dotenv)
    dotenv.write_text(f"{name}=something\n")
    with pytest.raises(UserError, match=f"{name} is no setting of a stack") as error:
        settings.load({}, dotenv=dotenv)
    assert f"export {name}=something" in str(error.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        settings.load({}, surroundings=False).port = 1


def test_a_list_is_written_with_commas() -> None:
    loaded = settings.load({}, ["allowed-hosts=ml.example.com, 10.0.0.7"], surroundings=False)
    assert loaded.allowed_hosts == ("ml.example.com", "10.0.0.7")


def test_an_unknown_setting_is_answered_with_its_source_and_the_nearest_name() -> None:
    with pytest.raises(UserError) as answer:
        settings.load({}, ["prot=5556"], surroundings=False)
    assert "unknown setting 'prot', set by --set prot=5556" in str(answer.value)
    assert "did you mean: port" in str(answer.value)


def test_an_unknown_environment_variable_of_ours_is_found(
    monkeypatch: pytest.MonkeyPatch, dotenv: Path
) -> None:
    monkeypatch.setenv(f"{PREFIX}WORKRES", "2")
    with pytest.raises(UserError, match=f"set by the environment variable {PREFIX}WORKRES"):
        settings.load({}, dotenv=dotenv)


@pytest.mark.parametrize(
    "word", ["port=abc", "port=0", "workers=none", "memory_limit=1 GB", "x_frame_options=x"]
)
def test_a_value_of_the_wrong_type_is_answered_with_an_example(word: str) -> None:
    name = word.partition("=")[0]
    with pytest.raises(UserError) as answer:
        settings.load({}, [word], surroundings=False)
    assert f"setting '{name}' cannot be" in str(answer.value)
    assert f"it was set by --set {word}" in str(answer.value)
    assert f"invoke up --set {name}=" in str(answer.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("state_dir=", "takes a path"),
        ("gateway_keys= ", "takes a path"),
        ("state_dir=~nobody-of-this-name/x", "names the home folder of nobody here"),
        ("gateway_config=~nobody-of-this-name", "names the home folder of nobody here"),
        ("cleanup_older_than=999999999999999999d", "takes an age of 30 years at most, such as 30d"),
        ("cleanup_older_than=\uff13d", "takes an age of 30 years at most, such as 30d"),
        ("s3_endpoint=http://[", "takes the address of a server, such as https://s3.example.com:9000"),
        ("object_store_url=http://x:99999", "takes the address of a server, such as "),
        ("port=\uff18\uff10", "input should be a valid integer"),
        ("workers=٢", "input should be a valid integer"),
        ("x_frame_options=deny", "input should be 'SAMEORIGIN', 'DENY' or 'NONE'"),
    ],
)
def test_a_value_that_means_nothing_is_refused(word: str, said: str) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(UserError) as answer:
        settings.load({}, [word], surroundings=False)
    assert str(answer.value).startswith(f"setting '{name}' cannot be '{value}': {said}")


def test_a_word_without_an_equals_sign_is_answered() -> None:
    with pytest.raises(UserError, match="--set takes KEY=VALUE, not 'port'"):
        settings.load({}, ["port"], surroundings=False)


@pytest.mark.parametrize("line", ["this is no assignment", f"{PREFIX}PORT", f'{PREFIX}PORT="55'])
def test_a_broken_dotenv_line_is_named_with_its_number(dotenv: Path, line: str) -> None:
    dotenv.write_text(f"# fine\n{PREFIX}WORKERS=1\n{line}\n")
    with pytest.raises(UserError, match=re.escape(f"cannot read {dotenv}, line 3")):
        settings.load({}, dotenv=dotenv)


def test_a_dotenv_that_is_not_utf_8_is_answered(dotenv: Path) -> None:
    dotenv.write_bytes(f"{PREFIX}PORT=1\n".encode("utf-16"))
    with pytest.raises(UserError, match=re.escape(f"cannot read {dotenv}: it is not UTF-8")):
        settings.load({}, dotenv=dotenv)


def test_the_example_file_documents_every_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    documented = dict(re.findall(rf"^# ?{PREFIX}([A-Z0-9_]+)=(.*)$", text, flags=re.MULTILINE))
    expected = {name.upper(): settings.as_text(name) for name in Settings.model_fields}
    assert documented == expected


def test_the_example_file_says_something_about_every_setting() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"# {PREFIX}"):
            assert lines[number - 1].startswith("# "), f"no words above: {line}"
            assert not lines[number - 1].startswith(f"# {PREFIX}"), f"no words above: {line}"
