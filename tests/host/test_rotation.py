"""`invoke secrets-rotate` on a live quickstart: new secrets everywhere, old ones refused, nothing lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import boto3
import botocore.exceptions
import openai
import psycopg2
import pytest
import yaml
from botocore.config import Config

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest, wait_until
from tests.support import answers, story
from tests.support.provider import KEY, WORDS, provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROTATED = [
    "postgres-password",
    "database-password",
    "object-store-root-password",
    "object-store-secret",
    "gateway-passphrase",
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    folder = tmp_path_factory.mktemp("rotation")
    keys = folder / "keys"
    keys.mkdir()
    (keys / "provider_key").write_text(KEY)
    with provider() as base:
        config = {"openai_api_key": "provider_key", "openai_api_base": base}
        model = {"provider": "openai", "name": "a-model", "config": config}
        endpoint = {"name": "chat", "endpoint_type": "llm/v1/chat", "model": model}
        (folder / "gateway.yaml").write_text(yaml.safe_dump({"endpoints": [endpoint]}))
        ports = {name: free_port() for name in ("port", "gateway_port", "postgres_port", "object_store_port")}
        inputs = {"gateway_config": folder / "gateway.yaml", "gateway_keys": keys}
        subject = StackUnderTest("quickstart", "host", folder / "state", {**ports, **inputs, "workers": 1})
        subject.up()
        yield subject
        subject.down("--volumes", "--yes")


@pytest.fixture(scope="module")
def told(stack: StackUnderTest, tmp_path_factory: pytest.TempPathFactory) -> story.Told:
    return story.tell(stack.url, tmp_path_factory.mktemp("told"), megabytes=1)


def secrets(stack: StackUnderTest) -> dict[str, str]:
    names = [*ROTATED, "object-store-root-user", "object-store-key"]
    return {name: (stack.state / "secrets" / name).read_text() for name in names}


def opens_postgres(stack: StackUnderTest, user: str, password: str) -> bool:
    database = "postgres" if user == "postgres" else "mlflow"
    try:
        psycopg2.connect(
            host="127.0.0.1",
            port=stack.settings["postgres_port"],
            user=user,
            password=password,
            dbname=database,
        ).close()
    except psycopg2.OperationalError:
        return False
    return True


def opens_store(stack: StackUnderTest, key: str, secret: str) -> bool:
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{stack.settings['object_store_port']}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}),
    )
    try:
        client.list_objects_v2(Bucket="mlflow", MaxKeys=1)
    except botocore.exceptions.ClientError:
        return False
    return True


def opened(stack: StackUnderTest, values: dict[str, str]) -> list[bool]:
    """Whether each of four doors opens: the superuser, the role, the store's owner, MLflow's key."""
    return [
        opens_postgres(stack, "postgres", values["postgres-password"]),
        opens_postgres(stack, "mlflow", values["database-password"]),
        opens_store(stack, values["object-store-root-user"], values["object-store-root-password"]),
        opens_store(stack, values["object-store-key"], values["object-store-secret"]),
    ]


def provider_key(stack: StackUnderTest) -> tuple[bytes, bytes]:
    """As the gateway keeps it: encrypted, and the key of that, encrypted with the passphrase."""
    with psycopg2.connect(
        host="127.0.0.1",
        port=stack.settings["postgres_port"],
        user="mlflow",
        password=secrets(stack)["database-password"],
        dbname="mlflow",
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT encrypted_value, wrapped_dek FROM secrets")
        ((value, key),) = cursor.fetchall()
        return bytes(value), bytes(key)


def check_rotated(stack: StackUnderTest, before: dict[str, str], told: story.Told, folder: Path) -> None:
    """All is new and works, the old is refused, nothing is lost, and nothing of the work is left."""
    after = secrets(stack)
    assert {name for name in after if after[name] != before[name]} == set(ROTATED)
    assert opened(stack, after) == [True] * 4
    assert opened(stack, before) == [False] * 4
    story.check(stack.url, told, folder)
    assert story.some_run(stack.url).data.metrics == {"x": 1.0}
    client = openai.OpenAI(base_url=f"{stack.url}/gateway/mlflow/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello?"}])
    assert answer.choices[0].message.content == "".join(WORDS)
    files = {path.name: path.read_text() for path in (stack.state / "secrets").iterdir() if path.is_file()}
    assert files["postgres-password-previous"] == files["gateway-passphrase-previous"] == ""
    assert not list((stack.state / "secrets").glob("rotation*"))


def test_every_secret_changes_and_nothing_is_lost(
    stack: StackUnderTest, told: story.Told, tmp_path: Path
) -> None:
    before, (value, key) = secrets(stack), provider_key(stack)
    assert opened(stack, before) == [True] * 4
    ended = stack.invoke("secrets-rotate", "--stack=quickstart", "--yes", "--json")
    answer = answers.read("secrets-rotate", ended.stdout)
    assert answer["rotated"] == ROTATED
    assert answer["generation"] == 1
    assert "left alone: provider keys" in ended.stderr
    check_rotated(stack, before, told, tmp_path)
    assert provider_key(stack)[0] == value
    assert provider_key(stack)[1] != key
    for secret in (*before.values(), *secrets(stack).values()):
        assert secret not in ended.stdout + ended.stderr


def test_a_rotation_killed_at_its_beginning_is_finished_by_the_next(
    stack: StackUnderTest, told: story.Told, tmp_path: Path
) -> None:
    before = secrets(stack)
    process = stack.start("secrets-rotate", "--stack=quickstart", "--yes")
    wait_until((stack.state / "secrets/rotation").exists, lambda: str(process.poll()))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    begun = (stack.state / "secrets/rotation/postgres-password").read_text()
    answer = stack.invoke("secrets-rotate", "--stack=quickstart", "--yes")
    assert "a rotation was cut off and goes on" in answer.stderr
    check_rotated(stack, before, told, tmp_path)
    assert secrets(stack)["postgres-password"] == begun


def test_a_rotation_killed_in_its_middle_is_finished_by_up(
    stack: StackUnderTest, told: story.Told, tmp_path: Path
) -> None:
    before = secrets(stack)
    process = stack.start("secrets-rotate", "--stack=quickstart", "--yes")
    changed = stack.state / "secrets/rotation/postgres-password"
    wait_until(
        lambda: changed.exists() and opens_postgres(stack, "postgres", changed.read_text()),
        lambda: str(process.poll()),
    )
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert changed.exists()
    stack.up()
    check_rotated(stack, before, told, tmp_path)


def test_a_set_of_before_a_rotation_opens_to_the_new_passphrase(
    stack: StackUnderTest, told: story.Told, tmp_path: Path
) -> None:
    before, (value, key) = secrets(stack), provider_key(stack)
    stack.invoke("backup", "--stack=quickstart", f"--to={tmp_path / 'sets'}")
    stack.invoke("secrets-rotate", "--stack=quickstart", "--yes")
    answer = stack.invoke("restore", "--stack=quickstart", f"--backup={tmp_path / 'sets/latest'}", "--yes")
    assert "the new passphrase opens the gateway's secrets (1 changed)" in answer.stderr
    check_rotated(stack, before, told, tmp_path)
    assert provider_key(stack)[0] == value  # what the set holds, not stored again
    assert provider_key(stack)[1] != key


def test_a_no_changes_nothing(stack: StackUnderTest) -> None:
    before = secrets(stack)
    answer = stack.invoke("secrets-rotate", "--stack=quickstart")
    assert "nothing was changed" in answer.stderr
    assert secrets(stack) == before
    assert not (stack.state / "secrets/rotation").exists()
