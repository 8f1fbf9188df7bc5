"""The supervisord of one deployment: found by its pid file, spoken to over its socket, stopped by a signal."""

from __future__ import annotations

import os
import subprocess
import time
import xmlrpc.client
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from console import UserError
from stacks.definition.rendering import FRAMES
from stacks.state.opening import SOCKET
from stacks.state.record import make_private_dir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stacks.definition.deployment import Deployment

PID_FILE = "supervisord.pid"
LOG = "logs/supervisord.log"
LEAVE_SECONDS = 3.0  # for what notices by itself that its parent has ended


class Supervisord:
    """What the host engine asks of it."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._state = deployment.state

    def pid(self) -> int | None:
        """Its process id, if it runs, from here or from where the state directory lay at the last `up`."""
        try:
            pid = int((self._state / PID_FILE).read_text())
        except (OSError, ValueError):
            return None
        # A pid is used again some day: it is ours only if it runs our configuration.
        places = {self._state, Path(self._deployment.recorded.place)}
        return pid if any(_runs(pid, place) for place in places) else None

    def usable(self) -> bool:
        """Whether it runs from here, and answers."""
        pid = self.pid()
        if pid is None or not _runs(pid, self._state):
            return False
        try:
            self.rpc().getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self, environment: Mapping[str, str], deadline: float) -> None:
        """Start it, and wait until it answers.

        Args:
            environment: its own, and so that of every program.
            deadline: on the clock of time.monotonic.

        Raises:
            UserError: it does not start, or not answer in time.
        """
        socket = self._deployment.socket
        make_private_dir(socket.parent)
        if socket.parent.stat().st_uid != os.getuid():
            raise UserError(f"{socket.parent} belongs to another user", f"see: ls -ld {socket.parent}")
        socket.unlink(missing_ok=True)
        command = [
            self._deployment.python,
            "-m",
            "supervisor.supervisord",
            "-c",
            str(_configuration(self._state)),
        ]
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if started.returncode != 0:
            raise UserError(f"supervisord does not start: {(started.stderr or started.stdout).strip()}")
        while not self.usable():
            if time.monotonic() > deadline:
                raise UserError("supervisord does not answer", *last_lines(self._state / LOG))
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and all its programs, whether it answers or not.

        Raises:
            UserError: it does not end within a minute.
        """
        pid = self.pid()
        if pid is not None:
            try:
                process = psutil.Process(pid)
                family = process.children(recursive=True)
                process.terminate()
                process.wait(timeout=60)
                _end(family)
            except psutil.NoSuchProcess:
                pass
            except psutil.TimeoutExpired:
                raise UserError(
                    f"supervisord (pid {pid}) did not stop within 60 seconds",
                    f"see why: {self._state / LOG}",
                    f"or end it: kill -9 {pid}",
                ) from None
        for left in (self._deployment.socket, self._state / PID_FILE):
            left.unlink(missing_ok=True)

    def apply_changes(self) -> set[str]:
        """Have it read its configuration again; returns the programs that are new or differ."""
        rpc = self.rpc()
        added, changed, removed = rpc.reloadConfig()[0]
        for name in changed + removed:
            rpc.stopProcessGroup(name)
            rpc.removeProcessGroup(name)
        for name in added + changed:
            rpc.addProcessGroup(name)
        return set(added + changed)

    def start_program(self, name: str) -> None:
        """Start a program, if it does not run; returns at once."""
        with suppress(xmlrpc.client.Fault):  # supervisord may have started it in the meantime
            self.rpc().startProcess(name, False)

    def stop_program(self, name: str) -> None:
        """Stop a program, if it runs."""
        with suppress(xmlrpc.client.Fault):
            self.rpc().stopProcess(name)

    def infos(self) -> dict[str, Any]:
        """What it says of each program (supervisord.org/api.html, getProcessInfo).

        Raises:
            UserError: it does not answer.
        """
        try:
            return {info["name"]: info for info in self.rpc().getAllProcessInfo()}
        except (OSError, xmlrpc.client.Error) as error:
            name = self._deployment.name
            raise UserError(
                f"supervisord of stack '{name}' runs and does not answer at {self._socket()}: {error}",
                f"stop it: invoke down --stack={name}",
                f"then start it again: invoke up --stack={name}",
            ) from None

    def rpc(self) -> Any:
        """Its XML-RPC interface."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._socket()}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def _socket(self) -> Path:
        """Where it listens: here, or where it was told to before the state directory was moved."""
        known = (self._deployment.socket, Path(self._deployment.recorded.socket), self._state / SOCKET)
        return next((path for path in known if path.is_socket()), self._deployment.socket)


def _end(family: Sequence[psutil.Process]) -> None:
    """Kill what is left of a supervisord's family: a session of PostgreSQL has a process group of its own."""
    for process in psutil.wait_procs(family, timeout=LEAVE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=LEAVE_SECONDS)


def _configuration(state: Path) -> Path:
    return state / FRAMES["host"]


def _runs(pid: int, state: Path) -> bool:
    """Whether a process runs the configuration of a state directory."""
    try:
        return str(_configuration(state)) in psutil.Process(pid).cmdline()
    except (psutil.Error, ValueError):  # ValueError: no pid at all, such as -1
        return False


def last_lines(path: Path, *, since: int = 0, count: int = 10) -> list[str]:
    """The end of a log, of what was written after its first `since` bytes (of all, if it was rotated meanwhile)."""
    if not path.is_file():
        return []
    text = path.read_bytes()
    return text[since if since < len(text) else 0 :].decode(errors="replace").splitlines()[-count:]
