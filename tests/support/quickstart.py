"""What quickstart must do and withstand on either engine: the tests that both engines run, and what they share."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from develop.scratch.ports import free_port, free_ports
from develop.scratch.stack import StackUnderTest, wait_until
from stacks.definition.settings import ROOT
from tests.support import story
from tests.support.provider import KEY, WORDS, provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLIENTS = 20
AFTERWARDS = 3  # acknowledged writes of each client, after the kill, that end a trial
TEXT = "".join(WORDS)
QUESTION: list[Any] = [{"role": "user", "content": "hello?"}]


class Inside(ABC):
    """What a test reaches beyond the command line: the stack's stores and its processes."""

    def __init__(self, stack: StackUnderTest) -> None:
        self.stack = stack

    @abstractmethod
    def python(self, code: str) -> str:
        """Run Python where the tracking server runs, with its variables; what it printed."""

    @abstractmethod
    def kill(self, service: str) -> None:
        """Send SIGKILL to a service's main process, as a crash or the kernel would."""

    @abstractmethod
    def identities(self) -> dict[str, object]:
        """What changes when a service is started again, by service."""

    @abstractmethod
    def watched(self) -> Callable[[], list[object]]:
        """Remember what runs now; called after `down`, the result tells what of it is left."""

    @abstractmethod
    def places(self) -> dict[str, str]:
        """What this engine shows of a stack, beyond what `what_anybody_can_read` finds."""

    def sql(self, statement: str) -> list[list[Any]]:
        """The rows of a statement, by MLflow's own role."""
        code = (
            "import json, os, psycopg2; from sqlalchemy.engine import make_url\n"
            "url = make_url(os.environ['MLFLOW_BACKEND_STORE_URI'])\n"
            "link = psycopg2.connect(host=url.host, port=url.port, user=url.username, dbname=url.database)\n"
            "link.autocommit = True; cursor = link.cursor()\n"
            f"cursor.execute({statement!r}); print(json.dumps(cursor.fetchall(), default=str))"
        )
        return list(json.loads(self.python(code)))

    def objects(self) -> dict[str, int]:
        """The keys of the bucket, with their bytes."""
        code = (
            "import boto3, json, os\n"
            "store = boto3.client('s3', endpoint_url=os.environ['MLFLOW_S3_ENDPOINT_URL'])\n"
            "pages = store.get_paginator('list_objects_v2').paginate(Bucket='mlflow')\n"
            "print(json.dumps({row['Key']: row['Size'] for page in pages for row in page.get('Contents', [])}))"
        )
        return dict(json.loads(self.python(code)))


def run_python(command: list[str], code: str, env: dict[str, str] | None = None) -> str:
    """Run a program that reads Python from its standard input; a failure fails with what it said."""
    done = subprocess.run(
        command, input=code, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_STOCK_CLIENT = """
import hashlib, json, pathlib, sys
peers = set()
sys.addaudithook(lambda event, given: peers.add(str(given[1])) if event == "socket.connect" else None)
import mlflow
folder = pathlib.Path(FOLDER)
client = mlflow.MlflowClient(URL)
run = client.create_run(client.create_experiment("big-" + folder.name)).info.run_id
client.log_artifact(run, str(folder / "big.bin"), "big")
path = client.download_artifacts(run, "big/big.bin", str(folder / "back"))
with open(path, "rb") as file:
    print(json.dumps({"digest": hashlib.file_digest(file, "sha256").hexdigest(), "peers": sorted(peers)}))
"""


def big_artifact(stack: StackUnderTest, folder: Path, *, megabytes: int = 300) -> None:
    """A client with no settings of its own sends a large artifact and fetches it, and speaks to the server alone."""
    digest = hashlib.sha256()
    with (folder / "big.bin").open("wb") as file:
        for _ in range(megabytes):
            block = os.urandom(2**20)
            digest.update(block)
            file.write(block)
    (folder / "back").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    clean["MLFLOW_DISABLE_TELEMETRY"] = "true"  # a test calls nobody outside
    code = _STOCK_CLIENT.replace("FOLDER", repr(str(folder))).replace("URL", repr(stack.url))
    answer = json.loads(run_python([sys.executable, "-"], code, clean).splitlines()[-1])
    assert answer["digest"] == digest.hexdigest()
    assert answer["peers"] == [str(("127.0.0.1", stack.settings["port"]))]
    (folder / "big.bin").unlink()
    shutil.rmtree(folder / "back")


def model_is_in_both_stores(inside: Inside, told: story.Told) -> None:
    """A logged model's row is in PostgreSQL and its files are in the bucket."""
    rows = inside.sql(
        f"SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = '{told.parent}'"
    )
    assert len(rows) == 1
    model, location = rows[0]
    assert location.startswith("mlflow-artifacts:")
    folder = f"artifacts/{told.experiment}/models/{model}/artifacts/"
    found = {key.removeprefix(folder) for key in inside.objects() if key.startswith(folder)}
    assert {"MLmodel", "python_model.pkl"} <= found
    assert inside.sql(f"SELECT version FROM model_versions WHERE run_id = '{told.parent}'") == [[1]]


class Trial:
    """Clients that write on while something is killed.

    Args:
        url: the tracking server.
        write: logs one thing, by run and step; an exception means that it was not acknowledged.
        clients: how many, each with a run of its own.
    """

    def __init__(self, url: str, write: Callable[[str, int], object], clients: int = CLIENTS) -> None:
        import mlflow

        client = mlflow.MlflowClient(url)
        experiment = client.create_experiment(f"trial-{os.urandom(4).hex()}")
        self.write = write
        self.acknowledged: dict[str, list[int]] = {
            client.create_run(experiment).info.run_id: [] for _ in range(clients)
        }
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(run,)) for run in self.acknowledged]

    def _work(self, run: str) -> None:
        step = 0
        while not self._stop.is_set():
            try:
                self.write(run, step)
                self.acknowledged[run].append(step)
            except Exception as error:  # whatever it is: this step was not acknowledged
                self.refused.append(str(error))
                time.sleep(0.2)
            step += 1

    def survive(self, kill: Callable[[], None]) -> dict[str, list[int]]:
        """Kill once everybody writes, wait until everybody writes again; what was acknowledged, by run."""
        for thread in self._threads:
            thread.start()
        try:
            self._progress(AFTERWARDS)
            kill()
            time.sleep(1)  # what was acknowledged before it was dead is no sign of life
            self._progress(AFTERWARDS)
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        return self.acknowledged

    def _progress(self, count: int) -> None:
        before = {run: len(steps) for run, steps in self.acknowledged.items()}

        def done() -> bool:
            return all(len(steps) >= before[run] + count for run, steps in self.acknowledged.items())

        wait_until(done, lambda: f"{self.acknowledged} {self.refused[-3:]}")


def metrics_survive(inside: Inside, victim: str) -> None:
    """A service is killed while clients log metrics: it comes back, and every acknowledged metric is there."""
    import mlflow

    client = mlflow.MlflowClient(inside.stack.url)
    trial = Trial(inside.stack.url, lambda run, step: client.log_metric(run, "m", step * 0.5, step=step))
    before = inside.identities()[victim]
    acknowledged = trial.survive(lambda: inside.kill(victim))
    inside.stack.wait_healthy()
    assert inside.identities()[victim] != before
    for run, steps in acknowledged.items():
        kept = {metric.step: metric.value for metric in client.get_metric_history(run, "m")}
        assert {step: kept.get(step) for step in steps} == {step: step * 0.5 for step in steps}


def artifacts_survive(inside: Inside, victim: str, folder: Path) -> None:
    """A service is killed while artifacts go up: it comes back, and every acknowledged artifact is whole."""
    import mlflow

    client = mlflow.MlflowClient(inside.stack.url)
    contents: dict[str, str] = {}

    def upload(run: str, step: int) -> None:
        path = folder / run / f"{step}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(2**20))
        contents[f"{run}/{step}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        client.log_artifact(run, str(path))
        path.unlink()

    acknowledged = Trial(inside.stack.url, upload, clients=4).survive(lambda: inside.kill(victim))
    inside.stack.wait_healthy()
    for run, steps in acknowledged.items():
        back = Path(client.download_artifacts(run, "", str(folder)))
        for step in steps:
            assert (
                hashlib.sha256((back / f"{step}.bin").read_bytes()).hexdigest() == contents[f"{run}/{step}"]
            )


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
    done = stack.invoke("secrets-rotate", f"--stack={stack.name}", "--yes", "--json")
    rotated, after = json.loads(done.stdout)["rotated"], secret_values(stack)
    assert len(rotated) == 5
    assert all(after[name] != before[name] for name in rotated)
    assert not [
        name for values in (before, after) for name in rotated if values[name] in done.stdout + done.stderr
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


def one_of_two_wins(stack: StackUnderTest, setting: str) -> None:
    """Two `up` at once, both with something to do: one does it, the other says who is at it."""
    words = ("up", f"--stack={stack.name}", "--set", setting)
    rivals = [stack.start(*words), stack.start(*words)]
    answers = [rival.communicate(timeout=300)[1] for rival in rivals]
    assert sorted(rival.returncode for rival in rivals) == [0, 1], answers
    loser = next(answer for rival, answer in zip(rivals, answers, strict=True) if rival.returncode == 1)
    winner = next(rival for rival in rivals if rival.returncode == 0)
    assert (
        f"error: stack '{stack.name}' is being changed: its lock is held by invoke up (process {winner.pid} on "
        in loser
    )


def gateway_yaml(base: str) -> str:
    """An endpoint that works and one without its key."""
    endpoints = [
        {
            "name": name,
            "endpoint_type": "llm/v1/chat",
            "model": {
                "provider": "openai",
                "name": f"model-of-{name}",
                "config": {"openai_api_key": key, "openai_api_base": base},
            },
        }
        for name, key in (("first", "provider-key"), ("keyless", "absent-key"))
    ]
    return json.dumps({"endpoints": endpoints}, indent=2)  # JSON is YAML


def foreign_headers_are_refused(stack: StackUnderTest) -> None:
    """The server answers to its own names and to its own pages, and to no others."""

    def ask(**headers: str) -> int:
        body = '{"max_results": 1}'
        connection = http.client.HTTPConnection("127.0.0.1", int(str(stack.settings["port"])), timeout=60)
        connection.request(
            "POST",
            "/api/2.0/mlflow/experiments/search",
            body,
            {"Content-Type": "application/json", **headers},
        )
        with closing(connection):
            return connection.getresponse().status

    port = stack.settings["port"]
    assert ask() == ask(Host=f"localhost:{port}") == ask(Host="mlflow:5000") == 200
    assert ask(Host=f"127.0.0.1:{port}", Origin=f"http://127.0.0.1:{port}") == 200
    assert ask(Host="evil.example") == ask(Host="postgres:5000") == 403
    assert ask(Host=f"localhost:{port}", Origin="http://evil.example") == 403


def write_gateway(folder: Path, base: str) -> dict[str, object]:
    """Write gateway.yaml and the one key; the settings that name them."""
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "provider-key").write_text(f"{KEY}\n")
    (folder / "gateway.yaml").write_text(gateway_yaml(base))
    return {"gateway_config": folder / "gateway.yaml", "gateway_keys": folder / "keys"}


def chat(base_url: str, model: str) -> str | None:
    """Ask one question with the OpenAI client; the answer."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    return client.chat.completions.create(model=model, messages=QUESTION).choices[0].message.content


def gateway_answers(base_url: str) -> None:
    """The OpenAI client and curl chat and stream; the endpoint without its key, and it alone, says what it lacks."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    assert chat(base_url, "first") == TEXT
    chunks = client.chat.completions.create(model="first", messages=QUESTION, stream=True)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert tuple(word for word in words if word) == WORDS
    lacking = "endpoint 'keyless' has no provider key: there is no secret file"
    with pytest.raises(openai.APIStatusError, match=lacking) as refusal:
        chat(base_url, "keyless")
    assert refusal.value.status_code == 503
    body = json.dumps({"model": "first", "messages": QUESTION, "stream": True})
    command = [
        "curl",
        "--silent",
        "--no-buffer",
        "--header",
        "Content-Type: application/json",
        "--data",
        body,
    ]
    lines = subprocess.run(
        [*command, f"{base_url}/chat/completions"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events if event != "[DONE]"]
    assert "".join(delta.get("content") or "" for delta in deltas) == TEXT


@contextmanager
def taken_down(stack: StackUnderTest) -> Iterator[StackUnderTest]:
    """Remove a stack at the end, its data too, if it was ever begun."""
    try:
        yield stack
    finally:
        if (stack.state / "stack.json").exists():
            stack.down("--volumes", "--yes")


@contextmanager
def running(engine: str, folder: Path, host: str = "127.0.0.1") -> Iterator[StackUnderTest]:
    """Quickstart, up, with a provider behind its gateway that listens on `host`."""
    with provider(host) as base:
        settings = free_ports() | write_gateway(folder, base)
        with taken_down(StackUnderTest("quickstart", engine, folder / "state", settings)) as subject:
            subject.up()
            yield subject


class OnEitherEngine:
    """The tests that both engines run, in this order, on one running stack.

    A module gives the fixtures: `stack` and `inside` for the whole of it, `bridge`, where the stack's processes reach
    this machine.
    """

    def test_up_ends_with_every_service_ready_and_two_urls(self, stack: StackUnderTest) -> None:
        status = stack.status()
        names = ["postgres", "role", "object-store", "bucket", "schema", "mlflow", "gateway-sync"]
        assert [service["name"] for service in status["services"]] == names
        assert {service["health"] for service in status["services"]} == {"healthy", "done"}
        assert all(
            service["memory"] > 10 * 2**20 for service in status["services"] if service["health"] == "healthy"
        )
        assert stack.service("mlflow")["url"] == stack.url
        assert status["gateway"] == f"{stack.url}/gateway/mlflow/v1"
        assert status["schema"]["state"] == "current"

    def test_a_story_outlives_down_and_up_and_lies_in_both_stores(
        self, stack: StackUnderTest, inside: Inside, tmp_path: Path
    ) -> None:
        told = story.tell(stack.url, tmp_path)
        story.check(stack.url, told, tmp_path)
        left = inside.watched()
        stack.down()
        assert left() == []
        stack.up()
        story.check(stack.url, told, tmp_path)
        model_is_in_both_stores(inside, told)

    def test_a_stock_client_moves_300_mb_both_ways_through_the_server_alone(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        big_artifact(stack, tmp_path)

    @pytest.mark.parametrize("victim", ["postgres", "mlflow"])
    def test_no_acknowledged_metric_is_lost_when_a_service_is_killed(
        self, inside: Inside, victim: str
    ) -> None:
        metrics_survive(inside, victim)

    @pytest.mark.parametrize("victim", ["object-store", "mlflow"])
    def test_no_acknowledged_artifact_is_lost_when_a_service_is_killed(
        self, inside: Inside, victim: str, tmp_path: Path
    ) -> None:
        artifacts_survive(inside, victim, tmp_path)

    def test_the_gateway_chats_streams_and_names_the_missing_key(self, stack: StackUnderTest) -> None:
        gateway_answers(stack.status()["gateway"])

    def test_no_secret_shows_anywhere(self, stack: StackUnderTest, inside: Inside) -> None:
        no_secret_in(stack, inside.places() | what_anybody_can_read(stack))
        # A container's user is another one; the folder is closed.
        secret_files_are_closed(stack, 0o444 if stack.engine == "compose" else 0o400)

    def test_mlflow_is_no_superuser_of_its_stores(self, inside: Inside) -> None:
        roles_are_modest(inside)

    @pytest.mark.parametrize("name", ["postgres-password", "gateway-passphrase"])
    def test_a_lost_secret_is_named_and_nothing_changes(self, inside: Inside, name: str) -> None:
        lost_secret_is_named(inside, name)

    def test_a_foreign_host_or_origin_is_refused(self, stack: StackUnderTest) -> None:
        foreign_headers_are_refused(stack)

    def test_of_two_up_at_once_one_wins_and_a_standalone_gateway_has_a_url_of_its_own(
        self, stack: StackUnderTest
    ) -> None:
        one_of_two_wins(stack, "gateway=standalone")
        answer = stack.status()
        url = f"http://127.0.0.1:{stack.settings['gateway_port']}"
        assert answer["services"][-1]["url"] == url
        assert answer["gateway"] == f"{url}/v1"
        gateway_answers(answer["gateway"])

    def test_the_built_in_gateway_comes_back_and_a_changed_key_needs_no_restart(
        self, stack: StackUnderTest, inside: Inside
    ) -> None:
        answer = stack.up()
        assert answer["gateway"] == f"{stack.url}/gateway/mlflow/v1"
        gateway_answers(answer["gateway"])
        keys = stack.settings["gateway_keys"]
        shutil.copy(f"{keys}/provider-key", f"{keys}/absent-key")
        before = inside.identities()
        stack.up()
        assert inside.identities() == before
        assert chat(answer["gateway"], "keyless") == TEXT

    def test_a_second_copy_of_the_repository_runs_beside_the_first(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        unwanted = (".git", ".venv", ".stacks", "__pycache__", ".*_cache", "tests", ".env")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unwanted))
        second = StackUnderTest("minio-postgres", stack.engine, copy / ".stacks", free_ports(), root=copy)
        with taken_down(second):
            assert second.up()["project"] != stack.status()["project"]
            run = story.some_run(second.url)
            assert run.data.metrics == {"x": 1.0}
            assert story.some_run(stack.url).info.run_id != run.info.run_id
        assert stack.service("mlflow")["health"] == "healthy"

    def test_a_wrong_gateway_yaml_is_told_before_anything_starts(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        broken = tmp_path / "gateway.yaml"
        broken.write_text(
            "endpoints:\n- name: chat\n  endpoint_type: llm/v1/chat\n  model: {provider: nosuch, name: x}\n"
        )
        fresh = StackUnderTest("gateway", stack.engine, tmp_path, {"gateway_config": broken})
        answer = fresh.invoke("up", "--stack=gateway", f"--engine={stack.engine}", expect=1).stderr
        assert "endpoints[0].model.provider" in answer
        assert str(broken) in answer
        assert not fresh.state.exists()

    def test_the_gateway_stack_runs_alone_and_starts_without_any_key(
        self, stack: StackUnderTest, bridge: str, tmp_path: Path
    ) -> None:
        with provider(bridge) as base:
            settings = {"gateway_port": free_port(), **write_gateway(tmp_path, base)}
            key = tmp_path / "keys" / "provider-key"
            key.rename(tmp_path / "aside")
            with taken_down(StackUnderTest("gateway", stack.engine, tmp_path / "state", settings)) as alone:
                answer = alone.up()
                assert [service["name"] for service in answer["services"]] == ["gateway"]
                (tmp_path / "aside").rename(key)
                gateway_answers(alone.up()["gateway"])


def full_store_is_told(small: StackUnderTest, grow: Callable[[], object], folder: Path) -> None:
    """A store of 30 MB is up: what does not fit is told, what fits is whole, and all goes well once there is room.

    Args:
        small: the stack.
        grow: gives the store's disk 100 MB.
        folder: for files.
    """
    import mlflow

    client = mlflow.MlflowClient(small.url)
    run = client.create_run("0").info.run_id
    kept, large = folder / "kept.bin", folder / "large.bin"
    kept.write_bytes(os.urandom(10 * 2**20))
    large.write_bytes(os.urandom(40 * 2**20))
    client.log_artifact(run, str(kept))
    with pytest.raises(requests.HTTPError, match="the artifact store is full, or lost the upload"):
        client.log_artifact(run, str(large))
    assert [file.path for file in client.list_artifacts(run)] == ["kept.bin"]
    (folder / "back").mkdir()
    back = client.download_artifacts(run, "kept.bin", str(folder / "back"))
    assert kept.read_bytes() == (folder / "back" / "kept.bin").read_bytes(), back
    client.log_metric(run, "still", 1.0)
    grow()
    client.log_artifact(run, str(large))
    client.download_artifacts(run, "large.bin", str(folder / "back"))
    assert large.read_bytes() == (folder / "back" / "large.bin").read_bytes()
