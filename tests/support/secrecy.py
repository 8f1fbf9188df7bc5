"""Secrets show nowhere, open only what they are for, and can be lost or made anew without harm."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from tests.support import answers, story
from tests.support.gateways import TEXT, chat

if TYPE_CHECKING:
    from pathlib import Path

    from develop.scratch.stack import StackUnderTest
    from tests.support.inside import Inside


def secret_values(stack: StackUnderTest) -> dict[str, str]:
    """Every secret of a stack, by file; from the derived files, the values that they carry."""
    folder = stack.state / "secrets"
    derived = {"pgpass", "object-store-credentials", "object-store-owner"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in derived]
    values = {str(path.relative_to(folder)): path.read_text().strip() for path in files}
    return {
        name: value for name, value in values.items() if value
    }  # the previous ones are empty but in a rotation


def no_secret_in(stack: StackUnderTest, places: dict[str, str]) -> None:
    """No text holds a secret's value; a failure names the place and the file, and shows neither."""
    secrets = secret_values(stack)
    assert len(secrets) >= 3
    assert [
        (place, name) for place, text in places.items() for name, value in secrets.items() if value in text
    ] == []


def what_anybody_can_read(stack: StackUnderTest) -> dict[str, str]:
    """Whatever the command line prints, the system shows of processes, and the state directory holds in files."""
    stack_flag = f"--stack={stack.name}"
    held = {"secrets", "data"}
    files = [path for path in stack.state.rglob("*") if path.is_file()]
    return {
        "status": stack.invoke("status", stack_flag, "--json").stdout,
        "logs": stack.invoke("logs", stack_flag, "--tail=100000").stdout,
        "render": stack.invoke("render", stack_flag).stdout,
        "an error": stack.invoke("up", stack_flag, "--set", "port=1x", expect=1).stderr,
        "ps": subprocess.run(["ps", "auxww"], capture_output=True, text=True, check=True).stdout,
    } | {str(path): path.read_text() for path in files if path.relative_to(stack.state).parts[0] not in held}


def secret_files_are_closed(stack: StackUnderTest, mode: int) -> None:
    """Only the owner enters the folders, and every secret has the mode that its engine needs."""
    for folder in (stack.state, stack.state / "secrets"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    files = [path for path in (stack.state / "secrets").rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {path.name: mode for path in files}
    assert {path.stat().st_uid for path in files} == {os.getuid()}


def roles_are_modest(inside: Inside) -> None:
    """MLflow's database role is no superuser and makes no database; its key to the store is not the owner's."""
    rights = "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    assert inside.sql(rights) == [["mlflow", False, False, False]]
    refused = inside.sql(
        "SELECT has_database_privilege('postgres', 'CREATE'), pg_has_role('pg_read_all_data', 'MEMBER')"
    )
    assert refused == [[False, False]]
    code = "import boto3; print(boto3.Session().get_credentials().access_key)"
    key = inside.python(code).strip()
    secrets = secret_values(inside.stack)
    assert key == secrets["object-store-key"] != secrets["object-store-root-user"]


def lost_secret_is_named(inside: Inside, name: str) -> None:
    """A secret that is gone is named, and nothing is touched."""
    stack, path = inside.stack, inside.stack.state / "secrets" / name
    aside = stack.state_dir / "aside"
    path.rename(aside)
    before, running = _state(stack), inside.identities()
    answer = stack.invoke("up", f"--stack={stack.name}", "--set", "x_frame_options=DENY", expect=1).stderr
    assert f"the secret '{name}' of stack '{stack.name}' is gone" in answer
    assert f"put the file back: {path}" in answer
    assert _state(stack) == before
    assert inside.identities() == running
    aside.rename(path)


_DOORS = """
import boto3, botocore.exceptions, json, os, psycopg2
from sqlalchemy.engine import make_url
url = make_url(os.environ["MLFLOW_BACKEND_STORE_URI"])
found = {}
for user, name, base in (("postgres", "postgres-password", "postgres"), ("mlflow", "database-password", "mlflow")):
    try:
        psycopg2.connect(host=url.host, port=url.port, user=user, password=VALUES[name], dbname=base).close()
        found[name] = True
    except psycopg2.OperationalError as error:
        assert "password authentication failed" in str(error), error
        found[name] = False
for user, name in (
    ("object-store-root-user", "object-store-root-password"), ("object-store-key", "object-store-secret")
):
    keys = {"aws_access_key_id": VALUES[user], "aws_secret_access_key": VALUES[name]}
    store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"], **keys)
    try:
        store.list_objects_v2(Bucket="mlflow", MaxKeys=1)
        found[name] = True
    except botocore.exceptions.ClientError:
        found[name] = False
print(json.dumps(found))
"""


def rotation_loses_nothing(inside: Inside, folder: Path) -> None:
    """New secrets open every door, the old ones none; what was written is there, and the gateway still has its key."""
    stack = inside.stack
    told = story.tell(stack.url, folder, megabytes=1)
    [[value, key]] = inside.sql(
        "SELECT encode(encrypted_value, 'hex'), encode(wrapped_dek, 'hex') FROM secrets LIMIT 1"
    )
    before = secret_values(stack)
    answer = stack.invoke("secrets-rotate", f"--stack={stack.name}", "--yes", "--json")
    rotated, after = answers.read("secrets-rotate", answer.stdout)["rotated"], secret_values(stack)
    assert len(rotated) == 5
    assert all(after[name] != before[name] for name in rotated)
    assert not [
        name
        for values in (before, after)
        for name in rotated
        if values[name] in answer.stdout + answer.stderr
    ]
    assert set(json.loads(inside.python(f"VALUES = {after!r}\n{_DOORS}")).values()) == {True}
    assert set(json.loads(inside.python(f"VALUES = {before!r}\n{_DOORS}")).values()) == {False}
    story.check(stack.url, told, folder)
    assert story.some_run(stack.url).data.metrics == {"x": 1.0}
    [[same, other]] = inside.sql(
        f"SELECT encode(encrypted_value, 'hex'), encode(wrapped_dek, 'hex') FROM secrets"
        f" WHERE encrypted_value = decode('{value}', 'hex')"
    )
    assert (same, other != key) == (value, True)
    assert chat(f"{stack.url}/gateway/mlflow/v1", "first") == TEXT


def _state(stack: StackUnderTest) -> dict[str, tuple[int, int]]:
    """Mode and time of change of every file that the command line writes."""
    paths = [
        path
        for path in stack.state.rglob("*")
        if path.relative_to(stack.state).parts[0] not in {"data", "logs"}
    ]
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in paths if path.name != "lock"
    }
