"""The stack `local` on Docker Compose: the client's story, and what the container may not do."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import docker
import pytest

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest, wait_until
from tests.support import story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    subject = StackUnderTest("local", "compose", tmp_path_factory.mktemp("state"), {"port": free_port()})
    subject.up()
    yield subject
    if subject.state.joinpath("stack.json").exists():
        subject.down("--volumes", "--yes")


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


def container(engine: docker.DockerClient, stack: StackUnderTest, service: str = "mlflow") -> Any:
    labels = [
        f"com.docker.compose.project={stack.status()['project']}",
        f"com.docker.compose.service={service}",
    ]
    [only] = engine.containers.list(all=True, filters={"label": labels})
    return only


def test_up_ends_with_a_server_that_answers(stack: StackUnderTest) -> None:
    status = stack.status()
    assert status["engine"] == "compose"
    server = stack.service("mlflow")
    assert (server["state"], server["health"], server["version"]) == ("running", "healthy", "3.17.2")
    assert server["url"] == stack.url
    assert status["schema"]["state"] == "current"


def test_render_prints_byte_for_byte_what_up_writes(stack: StackUnderTest, tmp_path: Path) -> None:
    stack.invoke("render", "--engine=compose", f"--output={tmp_path}")
    assert (tmp_path / "compose.yaml").read_bytes() == (stack.state / "compose.yaml").read_bytes()


def test_a_client_reads_back_all_it_wrote(stack: StackUnderTest, tmp_path: Path) -> None:
    told = story.tell(stack.url, tmp_path)
    story.check(stack.url, told, tmp_path)
    assert stack.status()["artifacts"] > 20 * 2**20


def test_the_container_may_do_only_what_it_must(stack: StackUnderTest, engine: docker.DockerClient) -> None:
    subject = container(engine, stack)
    host = subject.attrs["HostConfig"]
    assert subject.exec_run(["python", "-c", "import os; print(os.getuid())"]).output.strip() == b"10001"
    assert subject.exec_run(["touch", "/opt/x"]).exit_code != 0
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == 2**30
    assert host["PidsLimit"] == 512
    assert host["Init"] is True
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert subject.labels["org.mlflow-stacks.stack"] == "local"


def test_nothing_is_published_beyond_loopback(stack: StackUnderTest, engine: docker.DockerClient) -> None:
    bindings = container(engine, stack).attrs["NetworkSettings"]["Ports"]
    published = [binding for bound in bindings.values() for binding in bound or []]
    assert published == [{"HostIp": "127.0.0.1", "HostPort": str(stack.settings["port"])}]


def test_up_again_changes_nothing_and_a_changed_setting_restarts_just_what_changed(
    stack: StackUnderTest, engine: docker.DockerClient
) -> None:
    before = container(engine, stack)
    stack.up()
    again = container(engine, stack)
    assert (again.id, again.attrs["State"]["StartedAt"]) == (before.id, before.attrs["State"]["StartedAt"])
    stack.up("--set", "x_frame_options=DENY")
    assert container(engine, stack).id != before.id
    stack.up()


def test_a_killed_server_comes_back(stack: StackUnderTest, engine: docker.DockerClient) -> None:
    before = container(engine, stack).attrs["State"]
    os.kill(before["Pid"], signal.SIGKILL)
    wait_until(
        lambda: container(engine, stack).attrs["State"]["Pid"] not in {0, before["Pid"]},
        lambda: str(container(engine, stack).attrs["State"]),
    )
    stack.wait_healthy()
    assert story.some_run(stack.url).data.metrics == {"x": 1.0}


def test_down_keeps_the_data_and_up_finds_it_again(stack: StackUnderTest, tmp_path: Path) -> None:
    told = story.tell(stack.url, tmp_path, megabytes=1)
    project = stack.status()["project"]
    stack.down()
    client = docker.from_env()
    assert client.containers.list(all=True, filters={"label": f"com.docker.compose.project={project}"}) == []
    client.close()
    stack.up()
    story.check(stack.url, told, tmp_path)


def test_down_with_volumes_removes_the_data(stack: StackUnderTest, engine: docker.DockerClient) -> None:
    project = stack.status()["project"]
    answer = stack.invoke("down", "--volumes")
    assert "nothing was changed" in answer.stderr
    assert f"volume {project}_mlflow-data" in answer.stderr
    stack.down("--volumes", "--yes")
    assert engine.volumes.list(filters={"label": f"com.docker.compose.project={project}"}) == []
    assert "was never brought up here" in stack.invoke("status", expect=1).stderr


def test_ctrl_c_during_up_leaves_nothing_running_and_says_so(
    tmp_path: Path, engine: docker.DockerClient
) -> None:
    stack = StackUnderTest("local", "compose", tmp_path, {"port": free_port()})
    process = stack.start("up", "--engine=compose")
    wait_until((stack.state / "compose.yaml").exists, lambda: str(list(tmp_path.rglob("*"))))
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "interrupted: nothing of stack 'local' runs; data is kept" in errors
    project = (stack.state / "stack.json").read_text()
    assert '"engine": "compose"' in project
    filters: dict[str, Any] = {"label": f"org.mlflow-stacks.project={stack.status()['project']}"}
    assert engine.containers.list(all=True, filters=filters) == []
    stack.down("--volumes", "--yes")
