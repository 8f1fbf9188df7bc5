"""What people mistype or lack: each gets a message, the next command, and exit code 1."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stack(tmp_path: Path) -> StackUnderTest:
    return StackUnderTest("local", "host", tmp_path / "state", {"port": free_port()})


def answer(stack: StackUnderTest, *words: str) -> str:
    ended = stack.invoke(*words, expect=1)
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_an_unknown_stack_is_answered_with_the_nearest_name(stack: StackUnderTest) -> None:
    assert answer(stack, "up", "--stack=quikstart") == (
        "error: unknown stack 'quikstart'\n"
        "  known stacks: gateway, local, minio-postgres, quickstart\n"
        "  did you mean: invoke up --stack=quickstart\n"
    )


def test_debug_shows_the_traceback(stack: StackUnderTest) -> None:
    assert "Traceback" in stack.invoke("--debug", "up", "--stack=quikstart", expect=1).stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("prot=5556", "error: unknown setting 'prot', set by --set prot=5556\n  did you mean: port\n"),
        ("port=abc", "error: setting 'port' cannot be 'abc': "),
        ("workers=-1", "error: setting 'workers' cannot be '-1': "),
    ],
)
def test_a_wrong_setting_is_answered(stack: StackUnderTest, word: str, message: str) -> None:
    assert answer(stack, "up", "--set", word).startswith(message)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["upp"], "error: unknown task 'upp'\n  did you mean: invoke up\n"),
        (["up", "--stak=local"], "error: invoke up has no flag --stak\n  did you mean: invoke up --stack\n"),
        (["up", "--engine=podman"], "error: --engine takes one of auto, compose, host, not 'podman'\n"),
        (["cleanup", "--dry", "--yes"], "did you mean: invoke cleanup --dry-run\n"),
        (["down", "cleanup", "--wait=abc"], "error: --wait takes seconds, not 'abc'\n"),
    ],
)
def test_what_means_nothing_is_answered_before_anything_happens(
    stack: StackUnderTest, words: list[str], text: str
) -> None:
    ended = stack.invoke(*words, expect=2)
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert text in ended.stderr
    assert "never brought up" not in ended.stderr


def test_whoever_reads_only_the_first_line_sees_no_traceback(stack: StackUnderTest) -> None:
    process = stack.start("stacks")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == ""
    assert process.wait(60) == 141


def test_a_taken_port_is_named_with_the_process_that_holds_it(stack: StackUnderTest) -> None:
    with socket.create_server(("127.0.0.1", int(str(stack.settings["port"])))):
        text = answer(stack, "up", "--engine=host")
    assert f"cannot listen on 127.0.0.1, port {stack.settings['port']}: address already in use by " in text
    assert f"(pid {os.getpid()})" in text
    assert "invoke up --set port=" in text


def test_an_address_of_another_machine_is_named_as_such(stack: StackUnderTest) -> None:
    with socket.create_server(("127.0.0.1", int(str(stack.settings["port"])))):
        text = answer(stack, "up", "--engine=host", "--set", "host=192.0.2.1")
    assert "'192.0.2.1' is no address of this machine" in text
    assert "by " not in text.splitlines()[0]


def test_a_port_that_another_stack_has_is_answered_with_that_stack(stack: StackUnderTest) -> None:
    stack.up()
    text = answer(
        stack, "up", "--stack=gateway", "--engine=host", "--set", f"gateway_port={stack.settings['port']}"
    )
    assert "stop the stack that has it: invoke down --stack=local" in text
    stack.down("--volumes", "--yes")


def test_a_missing_docker_engine_is_answered(stack: StackUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    text = answer(stack, "up", "--engine=compose")
    assert "the compose engine cannot run here: " in text
    assert "invoke doctor" in text


@pytest.mark.parametrize(
    ("engine", "compose", "message"),
    [
        ("19.03.1", "2.30.0", "Docker engine 19.03.1 is too old"),
        ("27.1.0", "1.29.2", "Docker Compose 1.29.2 is too old"),
    ],
)
def test_an_engine_or_compose_that_is_too_old_is_answered(
    stack: StackUnderTest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    compose: str,
    message: str,
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\ncase "$1" in compose) echo {compose};; *) echo {engine};; esac\n')
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    assert message in answer(stack, "up", "--engine=compose")


def test_a_state_directory_that_cannot_be_written_is_answered(stack: StackUnderTest) -> None:
    stack.state_dir.write_text("a file where the folder should be")
    text = answer(stack, "up", "--engine=host")
    assert f"the state directory {stack.state} cannot be written" in text
    assert "invoke up --set state_dir=DIR" in text


def test_a_wait_that_runs_out_shows_the_state_and_the_last_log_lines(stack: StackUnderTest) -> None:
    text = answer(stack, "up", "--engine=host", "--timeout=0.5")
    assert "is not ready in time" in text
    assert "invoke logs --stack=local --service=" in text
    assert "invoke up --timeout=SECONDS" in text
    stack.down("--volumes", "--yes")


def test_a_server_that_ends_at_start_is_shown_with_its_last_log_lines(stack: StackUnderTest) -> None:
    stack.state.mkdir(parents=True)
    (stack.state / "data").mkdir()
    (stack.state / "data" / "mlflow.db").write_text("this is no database")
    text = answer(stack, "up", "--engine=host")
    assert "service 'schema' failed" in text
    assert "mlflow.db" in text
    stack.down("--volumes", "--yes")


def test_a_stack_that_was_never_up_is_answered(stack: StackUnderTest) -> None:
    for task in ("status", "down", "logs"):
        assert "was never brought up here" in answer(stack, task)


def test_the_other_engine_is_refused_while_data_is_on_this_one(stack: StackUnderTest) -> None:
    stack.up()
    text = answer(stack, "up", "--engine=compose")
    assert "was brought up on the host engine, and its data is there" in text
    stack.down("--volumes", "--yes")


def test_two_at_once_are_told_apart(stack: StackUnderTest) -> None:
    first = stack.start("up", "--engine=host")
    while not (stack.state / "lock").exists() or not (stack.state / "lock").read_text():
        assert first.poll() is None
    text = answer(stack, "up", "--engine=host")
    assert f"stack 'local' is being changed: its lock is held by invoke up (process {first.pid} on " in text
    first.communicate(timeout=240)
    assert first.returncode == 0
    stack.down("--volumes", "--yes")
