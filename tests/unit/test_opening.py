"""A deployment is opened once, whole: as its settings want it now, or as its last `up` left it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from console import UserError
from stacks import engines
from stacks.definition.deployment import Record
from stacks.definition.settings import PREFIX, changes
from stacks.engines.supervisord import PID_FILE, Supervisord
from stacks.state import inputs, journal, record
from stacks.state.opening import last_settings, open_deployment, open_recorded, reopened

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "endpoints: []\n"


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own, and the gateway's inputs beside it."""
    places = {"state_dir": "state", "gateway_config": "gateway.yaml", "gateway_keys": "keys"}
    for name, place in places.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(tmp_path / place))
    return tmp_path / "state"


def test_what_a_stack_was_brought_up_with_is_what_later_verbs_work_on(state_dir: Path) -> None:
    first = open_deployment("local", ["port=6001"])
    assert first.recorded == Record()
    record.remember(first, "host", secrets=["pgpass"])
    again = open_recorded("local")
    assert again.settings == first.settings
    assert again.recorded.engine == "host"
    assert again.recorded.secrets == ("pgpass",)
    assert (again.state, again.project) == (state_dir / "local", first.project)


def test_up_keeps_what_the_last_one_was_given_unless_it_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = open_deployment("local", ["port=6001", "workers=3"])
    record.remember(first, "host", secrets=[])
    again = open_deployment("local", ["workers=1"])
    assert (again.settings.port, again.settings.workers) == (6001, 1)
    assert changes(last_settings(again), again.settings) == ["setting 'workers': 3 becomes 1"]
    assert open_deployment("local", reset=True).settings.port == 5555
    monkeypatch.setenv(f"{PREFIX}PORT", "6003")
    assert open_deployment("local").settings.port == 6003


def test_a_setting_goes_back_to_the_default_over_what_its_stack_says() -> None:
    record.remember(open_deployment("quickstart", ["workers=1"]), "host", secrets=[])
    assert open_deployment("quickstart").settings.workers == 1  # the file of quickstart says 0


def test_a_record_of_a_setting_that_is_gone_is_no_error() -> None:
    deployment = open_deployment("local", ["port=6001"])
    record.remember(deployment, "host", secrets=[])
    path = deployment.state / "stack.json"
    path.write_text(path.read_text().replace('"port"', '"former": 1, "port"'))
    assert open_deployment("local").settings.port == 6001
    assert open_recorded("local").settings.port == 6001


KEYED = """
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model: {provider: openai, name: gpt, config: {openai_api_key: $SOME_PROVIDER_KEY}}
"""


def test_a_provider_key_may_be_exported_later_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.yaml").write_text(KEYED)
    first = open_deployment("gateway")
    assert first.gateway
    assert list(first.gateway.missing) == ["chat"]
    monkeypatch.setenv("SOME_PROVIDER_KEY", "abc")
    then = open_deployment("gateway")
    assert then.gateway
    assert (dict(then.gateway.missing), dict(then.gateway.keys)) == ({}, {"SOME_PROVIDER_KEY": "abc"})
    assert then.gateway_digest != first.gateway_digest
    inputs.write(then, engine="host")
    record.remember(then, "host", secrets=[])
    monkeypatch.delenv("SOME_PROVIDER_KEY")
    again = open_deployment("gateway")
    assert again.gateway == then.gateway
    assert again.gateway
    assert dict(again.gateway.missing) == {}
    assert open_recorded("gateway").gateway == then.gateway


def test_a_stack_that_was_taken_down_is_known_as_such() -> None:
    deployment = open_deployment("local")
    record.remember(deployment, "host", secrets=[])
    record.taken_down(deployment.state)
    assert open_recorded("local").recorded.down
    record.remember(open_deployment("local"), "host", secrets=[])
    assert not open_recorded("local").recorded.down


def test_a_mistake_in_gateway_yaml_is_found_when_a_stack_is_opened(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("endpoints:\n  - nome: chat\n")
    with pytest.raises(UserError, match="unknown key"):
        open_deployment("gateway")
    assert open_deployment("local").gateway is None


@pytest.mark.parametrize("name", ["gateway.yaml", "keys/openai"])
def test_a_gateway_file_that_is_not_utf_8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / name).write_bytes("endpoints: []".encode("utf-16"))
    with pytest.raises(UserError, match=f"cannot read .*{name}: it is not UTF-8|gateway.yaml"):
        open_deployment("gateway")


def test_verbs_on_what_is_there_go_on_with_the_inputs_of_the_last_up(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "openai").write_text("first")
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    first = open_deployment("gateway")
    inputs.write(first, engine="host")
    record.remember(first, "host", secrets=[])
    (tmp_path / "gateway.yaml").write_text("this is no mapping")
    (tmp_path / "keys" / "openai").write_text("second")
    again = open_recorded("gateway")
    assert again.gateway == first.gateway
    assert again.gateway_digest == first.gateway_digest != ""


def test_a_stack_that_was_changed_since_it_was_opened_is_not_touched() -> None:
    deployment = open_deployment("local")
    record.remember(deployment, "host", secrets=[])
    with (
        pytest.raises(UserError, match="was changed by another command"),
        record.locked(deployment, "up"),
    ):
        pass
    with record.locked(reopened(deployment), "up"):
        pass


def test_opening_again_takes_the_version_that_the_record_knows() -> None:
    deployment = open_deployment("local")
    record.remember(replace(deployment, mlflow_version="3.15.1"), "host", secrets=[])
    assert reopened(deployment).mlflow_version == "3.15.1"
    assert reopened(deployment).mlflow_python.endswith("/local/mlflow/3.15.1/bin/python")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"engine": 5}',
        b'{"settings": [1]}',
        b'{"mlflow_version": 3}',
        b'{"mlflow_version": "../../x"}',
        b'{"project": "../../x"}',
        b'{"place": null}',
        b'{"generation": "x"}',
        b'{"images": "x"}',
        b'{"secrets": "abc"}',
        b'{"exported": [1]}',
        b'{"down": "no"}',
    ],
    ids=lambda content: content[:30].decode(errors="replace"),
)
def test_a_record_that_cannot_be_read_is_answered_with_what_helps(state_dir: Path, content: bytes) -> None:
    (state_dir / "local").mkdir(parents=True)
    path = state_dir / "local" / "stack.json"
    path.write_bytes(content)
    for opened in (open_recorded, open_deployment):
        with pytest.raises(UserError, match="the record of the last up cannot be read") as answer:
            opened("local")
        assert f"it is {path}" in answer.value.hints


def test_an_engine_of_another_version_is_named(state_dir: Path) -> None:
    record.remember(open_deployment("local"), "podman", secrets=[])
    for asked in (engines.running, lambda deployment: engines.choose(deployment, "auto")):
        with pytest.raises(UserError, match="the engine 'podman', which this version does not know"):
            asked(open_recorded("local"))
    (state_dir / "local" / "stack.json").unlink()
    with pytest.raises(UserError, match="was never brought up here"):
        engines.running(open_recorded("local"))


def test_a_rotation_whose_number_cannot_be_read_is_answered(state_dir: Path) -> None:
    record.remember(open_deployment("local"), "host", secrets=[])
    number = state_dir / "local" / record.ROTATION / "generation"
    number.parent.mkdir(parents=True)
    number.write_text("x")
    with pytest.raises(UserError, match="its number cannot be read") as answer:
        open_recorded("local")
    assert f"write it anew: echo 1 > {number}" in answer.value.hints
    number.write_text("1\n")
    assert open_recorded("local").generation == 1


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"before": "3.16.0"}', "[" * 100_000])
def test_the_journal_of_an_upgrade_that_cannot_be_read_is_answered(tmp_path: Path, content: str) -> None:
    assert journal.read(tmp_path) is None
    (tmp_path / record.JOURNAL).write_text(content)
    with pytest.raises(UserError, match="its journal cannot be read") as answer:
        journal.read(tmp_path)
    assert "invoke backups" in str(answer.value)


@pytest.mark.parametrize("content", [b"", b"-1", b"0", b"9" * 30, b"\xff\xfe", b"x"])
def test_a_file_that_names_no_process_stands_for_none(state_dir: Path, content: bytes) -> None:
    deployment = open_deployment("local")
    (state_dir / "local").mkdir(parents=True)
    (state_dir / "local" / PID_FILE).write_bytes(content)
    assert Supervisord(deployment).pid() is None
