"""What a `gateway.yaml` may say, and how a wrong one is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import gateway
from console import UserError
from gateway.config import load
from gateway.sync import wanted

if TYPE_CHECKING:
    from gateway.config import Endpoint

GOOD = """\
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: gpt
      config:
        openai_api_key: $KEY
        openai_api_base: http://127.0.0.1/v1
routes:
  - name: both
    task_type: llm/v1/chat
    destinations:
      - name: chat
        traffic_percentage: 100
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "gateway.yaml"
    file.write_text(text)
    return file


def endpoint(folder: Path, text: str) -> Endpoint:
    return load(written(folder, text), folder, {"KEY": "k"}).endpoints[0]


@pytest.mark.parametrize(
    ("old", "new", "message", "line"),
    [
        ("endpoints:", "endpoint:", "endpoint: unknown key", 1),
        ("  - name: chat\n    end", "  - end", "endpoints[0].name: is required", 2),
        ("name: chat", "name: a b", "endpoints[0].name: may hold letters, digits", 2),
        ("llm/v1/chat", "llm/v2/chat", "endpoints[0].endpoint_type: must be one of", 3),
        ("openai\n", "opnai\n", "endpoints[0].model.provider: The provider 'opnai' is not supported", 5),
        (
            "openai_api_key: $KEY",
            "openai_api_version: x",
            "endpoints[0].model.config.openai_api_key: is required",
            7,
        ),
        ("$KEY", "[a]", "endpoints[0].model.config.openai_api_key: must be $VARIABLE or the name of a", 8),
        ("$KEY", "5", "endpoints[0].model.config.openai_api_key: must be $VARIABLE or the name of a", 8),
        (
            "http://127.0.0.1/v1",
            "[x]",
            "endpoints[0].model.config.openai_api_base: must be a valid",
            9,
        ),
        ("    model:", "    modl:", "endpoints[0].modl: unknown key", 4),
        ("openai_api_base", "openai_api_bse", "endpoints[0].model.config.openai_api_bse: unknown key", 9),
        ("100", "99", "routes[0].destinations: the traffic percentages must sum to 100", 13),
        (
            "      - name: chat",
            "      - name: cat",
            "routes[0].destinations[0].name: there is no endpoint 'cat'",
            14,
        ),
        ("name: both", "name: chat", "routes[0].name: 'chat' is taken", 11),
        ("  - name: chat", "  - text\n  - name: chat", "endpoints[0]: must be a mapping, not text", 2),
        (
            "    model:",
            "    limit: {calls: 1}\n    model:",
            "endpoints[0].limit.renewal_period: is required",
            4,
        ),
        (
            "    model:",
            "    limit: {calls: 1, renewal_period: x}\n    model:",
            "endpoints[0].limit: Failed",
            4,
        ),
    ],
)
def test_a_wrong_key_is_told_by_its_path_and_line(
    tmp_path: Path, old: str, new: str, message: str, line: int
) -> None:
    file = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UserError) as raised:
        load(file, tmp_path, {"KEY": "k"})
    assert raised.value.message.startswith(f"gateway.yaml: {message}")
    assert raised.value.hints[0] == f"file: {file}, line {line}"


def test_what_is_no_yaml_is_told_by_its_line(tmp_path: Path) -> None:
    file = written(tmp_path, "endpoints:\n  - name: [\n")
    with pytest.raises(UserError, match="not valid YAML") as raised:
        load(file)
    assert raised.value.hints[0].startswith(f"file: {file}, line ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoints: " + "[" * 3000, "holds what cannot be read: maximum recursion depth"),
        ("endpoints: 2024-99-99\n", "holds what cannot be read: month must be in 1..12"),
        ("endpoints: 0x_\n", "holds what cannot be read: invalid literal"),
        (f"endpoints: {'9' * 5000}\n", "holds what cannot be read: Exceeds the limit"),
        (GOOD + "endpoints: []\n", "endpoints: is there twice"),
        (
            GOOD.replace("name: gpt", "name: gpt\n      name: other"),
            "endpoints[0].model.name: is there twice",
        ),
    ],
    ids=["deep", "date", "number", "long number", "twice", "twice below"],
)
def test_what_yaml_cannot_hold_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as answer:
        load(written(tmp_path, text), tmp_path, {})
    assert message in str(answer.value)
    assert f"file: {tmp_path}/gateway.yaml" in str(answer.value)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gateway.yaml")
    for path in (tmp_path / "gateway.yaml", tmp_path):
        with pytest.raises(UserError, match=r"cannot read .*: it is no file"):
            load(path, tmp_path, {})


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("/dev/zero", "it is no file: secret file /dev/zero"),
        ("{folder}", "it is no file: secret file {folder}"),
        ('"a\\0b"', "this cannot be read as text: secret file "),
        ("binary", "this cannot be read as text: secret file {folder}/binary"),
    ],
)
def test_a_key_that_is_no_file_of_text_is_missing(tmp_path: Path, key: str, reason: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    text = GOOD.replace("$KEY", key.format(folder=tmp_path))
    missing = load(written(tmp_path, text), tmp_path, {}).missing()
    assert reason.format(folder=tmp_path) in missing["chat"]


def test_a_key_written_into_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    key = "sk-abcdefghijklmnopqrstuvwxyz012345"
    with pytest.raises(UserError, match="looks like a key itself") as raised:
        load(written(tmp_path, GOOD.replace("$KEY", key)))
    assert key not in str(raised.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "endpoints:\n", "endpoints: []\n"])
def test_a_file_without_endpoints_is_a_gateway_without_endpoints(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)).all() == []


def test_no_file_is_a_gateway_without_endpoints(tmp_path: Path) -> None:
    assert load(tmp_path / "gateway.yaml").all() == load(None).all() == []


def test_keys_come_from_the_environment_else_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    (tmp_path / "KEY").write_text("from the file\n")
    for environ, expected in (
        ({"KEY": "from the environment"}, "from the environment"),
        ({}, "from the file"),
    ):
        endpoint = load(file, tmp_path, environ).endpoints[0]
        assert (endpoint.config["openai_api_key"], endpoint.missing) == (expected, "")
        assert expected not in repr(endpoint)


@pytest.mark.parametrize("content", [None, "\n"])
def test_a_missing_key_concerns_its_endpoint_and_the_routes_to_it(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "KEY").write_text(content)
    missing = load(written(tmp_path, GOOD), tmp_path, {}).missing()
    assert list(missing) == ["chat", "both"]
    assert f"secret file {tmp_path / 'KEY'}, and no variable KEY" in missing["chat"]


def test_the_example_is_right() -> None:
    example = Path(gateway.__file__).with_name("gateway.example.yaml")
    loaded = load(example, None, {})
    assert [entry.name for entry in loaded.all()] == ["chat", "claude", "embeddings", "default"]
    assert [wanted(entry).provider for entry in loaded.endpoints] == ["openai", "anthropic", "openai"]


def test_an_endpoint_is_translated_for_the_gateway_inside_the_server(tmp_path: Path) -> None:
    want = wanted(
        endpoint(
            tmp_path, GOOD.replace("openai_api_base:", "openai_api_type: openai\n        openai_api_base:")
        )
    )
    assert (want.secret, want.settings) == ({"api_key": "k"}, {"api_base": "http://127.0.0.1/v1"})
    assert "'k'" not in repr(want)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "llm/v1/chat",
            "llm/v1/completions",
            "endpoints[0].endpoint_type: the gateway inside the tracking server",
        ),
        ("    model:", "    limit: {calls: 1, renewal_period: minute}\n    model:", "endpoints[0].limit: "),
        ("      name: gpt\n", "", "endpoints[0].model.name: "),
        ("openai\n", "cohere\n", "endpoints[0].model.provider: "),
    ],
)
def test_what_cannot_be_translated_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = GOOD.split("routes:", maxsplit=1)[0].replace(old, new, 1)
    if "cohere" in new:
        text = text.replace("openai_api_key", "cohere_api_key").replace(
            "        openai_api_base: http://127.0.0.1/v1\n", ""
        )
    with pytest.raises(UserError) as raised:
        wanted(endpoint(tmp_path, text))
    assert raised.value.message.startswith(message)
