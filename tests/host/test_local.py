"""The stack `local` on the host engine: real processes of this user, a real client, real kills."""

from __future__ import annotations

import functools
import os
import signal
import socket
from typing import TYPE_CHECKING

import psutil
import pytest

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest, wait_until
from tests.support import answers, story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    nobody_there = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    subject = StackUnderTest(
        "local", "host", tmp_path_factory.mktemp("state"), {"port": free_port()}, variables=nobody_there
    )
    subject.up()
    yield subject
    if subject.state.joinpath("stack.json").exists():
        subject.down("--volumes", "--yes")


def supervisord(stack: StackUnderTest) -> psutil.Process:
    return psutil.Process(int((stack.state / "supervisord.pid").read_text()))


def gone(process: psutil.Process) -> bool:
    """Whether it has ended (a zombie has: its parent just has not asked yet)."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listeners(stack: StackUnderTest) -> dict[int, str]:
    """Who listens on the stack's port: process id to address."""
    addresses = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
            continue
        if connection.laddr.port == stack.settings["port"]:
            addresses[connection.pid] = connection.laddr.ip
    return addresses


def listener(stack: StackUnderTest) -> set[int]:
    return set(listeners(stack))


def test_up_ends_with_a_server_that_answers(stack: StackUnderTest) -> None:
    status = stack.status()
    answers.hold("status", status)
    answers.hold("up", stack.up())  # which changes nothing
    assert status["engine"] == "host"
    assert [service["name"] for service in status["services"]] == ["schema", "mlflow"]
    server = stack.service("mlflow")
    assert server["state"] == "running"
    assert server["health"] == "healthy"
    assert server["url"] == stack.url
    assert server["version"] == "3.17.2"
    assert status["schema"]["state"] == "current"
    assert status["database"] > 0


def test_render_prints_byte_for_byte_what_up_writes(stack: StackUnderTest, tmp_path: Path) -> None:
    stack.invoke("render", f"--output={tmp_path}")
    assert (tmp_path / "supervisord.conf").read_bytes() == (stack.state / "supervisord.conf").read_bytes()


def test_a_client_reads_back_all_it_wrote(stack: StackUnderTest, tmp_path: Path) -> None:
    told = story.tell(stack.url, tmp_path)
    story.check(stack.url, told, tmp_path)
    assert stack.status()["artifacts"] > 20 * 2**20


def test_up_again_changes_nothing(stack: StackUnderTest) -> None:
    before = [process.pid for process in supervisord(stack).children(recursive=True)]
    stack.up()
    assert [process.pid for process in supervisord(stack).children(recursive=True)] == before


def test_up_after_a_changed_setting_restarts_just_what_changed(stack: StackUnderTest) -> None:
    keeper = supervisord(stack).pid
    before = listener(stack)
    stack.up("--set", "x_frame_options=DENY")
    assert supervisord(stack).pid == keeper
    assert listener(stack).isdisjoint(before)
    stack.up()
    assert "DENY" in (stack.state / "supervisord.conf").read_text()
    answer = stack.invoke("up", "--reset")
    assert "setting 'x_frame_options': DENY becomes SAMEORIGIN" in answer.stderr
    assert "DENY" not in (stack.state / "supervisord.conf").read_text()


def test_it_listens_on_loopback_alone(stack: StackUnderTest) -> None:
    assert set(listeners(stack).values()) == {"127.0.0.1"}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_process_may_be_killed_and_the_right_one_holds_the_port_again(
    stack: StackUnderTest, workers: int
) -> None:
    stack.up("--set", f"workers={workers}")
    for turn in range(1 if workers == 1 else 3):
        keeper = supervisord(stack)
        family = sorted(keeper.children(recursive=True), key=lambda process: process.pid)
        assert len(family) >= workers
        victim = family[turn % len(family)]
        victim.send_signal(signal.SIGKILL)
        wait_until(functools.partial(gone, victim), functools.partial(str, victim))
        stack.wait_healthy()
        children = {process.pid for process in keeper.children(recursive=True)}
        assert listener(stack)
        assert listener(stack) <= children
        assert story.some_run(stack.url).data.metrics == {"x": 1.0}


def test_a_killed_supervisord_leaves_no_orphan_and_up_heals_it(stack: StackUnderTest) -> None:
    keeper = supervisord(stack)
    family = keeper.children(recursive=True)
    keeper.send_signal(signal.SIGKILL)
    wait_until(lambda: all(gone(process) for process in family), lambda: str(family))
    answer = stack.invoke("status", expect=1)
    assert "not as it should be: schema, mlflow; start it: invoke up --stack=local" in answer.stderr
    assert {service["state"] for service in stack.status()["services"]} == {"stopped"}
    stack.up()
    assert listener(stack) <= {process.pid for process in supervisord(stack).children(recursive=True)}
    assert story.some_run(stack.url).data.metrics == {"x": 1.0}


def test_logs_show_what_the_server_says(stack: StackUnderTest) -> None:
    logs = stack.invoke("logs", "--service=mlflow", "--tail=2000").stdout
    assert "Uvicorn running on" in logs
    assert stack.invoke("logs", "--service=nonesuch", expect=1).stderr.startswith(
        "error: stack 'local' has no service 'nonesuch'\n  its services: schema, mlflow\n"
    )


def test_a_foreign_host_or_origin_is_refused(stack: StackUnderTest) -> None:
    def ask(method: str, **headers: str) -> int:
        with socket.create_connection(("127.0.0.1", int(str(stack.settings["port"])))) as connection:
            lines = [f"{method} /api/2.0/mlflow/experiments/search HTTP/1.1", "Connection: close"]
            body = '{"max_results": 1}'
            lines += [f"{name}: {value}" for name, value in headers.items()]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
            connection.sendall("\r\n".join(lines).encode())
            return int(connection.recv(100).split()[1])

    port = stack.settings["port"]
    assert ask("POST", Host=f"localhost:{port}") == 200
    assert ask("POST", Host="mlflow:5000") == 200
    assert ask("POST", Host=f"127.0.0.1:{port}", Origin=f"http://127.0.0.1:{port}") == 200
    assert ask("POST", Host="evil.example") == 403
    assert ask("POST", Host=f"localhost:{port}", Origin="http://evil.example") == 403


def test_down_leaves_no_process_and_keeps_the_data(stack: StackUnderTest, tmp_path: Path) -> None:
    told = story.tell(stack.url, tmp_path, megabytes=1)
    keeper = supervisord(stack)
    family = [keeper, *keeper.children(recursive=True)]
    stack.down()
    assert all(gone(process) for process in family)
    assert listener(stack) == set()
    assert "stack 'local' is down" in stack.invoke("status").stdout
    assert {service["state"] for service in stack.status()["services"]} == {"stopped"}
    stack.up()
    story.check(stack.url, told, tmp_path)


def test_down_with_volumes_asks_first_and_then_removes_the_data(stack: StackUnderTest) -> None:
    answer = stack.invoke("down", "--volumes")
    assert "nothing was changed" in answer.stderr
    assert str(stack.state / "data") in answer.stderr
    assert stack.service("mlflow")["health"] == "healthy"
    stack.down("--volumes", "--yes")
    assert not (stack.state / "data").exists()
    assert "was never brought up here" in stack.invoke("status", expect=1).stderr


def test_ctrl_c_during_up_leaves_nothing_running_and_says_so(tmp_path: Path) -> None:
    stack = StackUnderTest("local", "host", tmp_path, {"port": free_port()})
    process = stack.start("up", "--engine=host")
    wait_until((stack.state / "logs" / "mlflow.log").exists, lambda: str(list(tmp_path.rglob("*"))))
    keeper = supervisord(stack)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "interrupted: nothing of stack 'local' runs; data is kept" in errors
    assert gone(keeper)
    assert listener(stack) == set()
