"""What every engine can do, and what it says of a service."""

from __future__ import annotations

import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar

from console import UserError, note
from disks import RESERVE, explain
from stacks.definition.rendering import FRAMES, secrets_named
from stacks.definition.services import SERVICES
from stacks.engines.readiness import passes, probe
from stacks.state import environments, inputs, record, reserve, secrets
from stacks.state.record import JOURNAL, RECORD, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from disks import Disk
    from stacks.definition.deployment import Deployment

RESTART_SECONDS = 180.0
ATTEMPTS = 3  # starts of a service that are followed by its end: it will not come by itself
AWAY = {"stopped", "exited"}  # states of a service that nobody waits for


@dataclass(frozen=True)
class ServiceStatus:
    """One service as it is now.

    Attributes:
        name: the service.
        state: ``running``, ``exited``, ``starting``, ``failed`` or ``stopped``.
        health: ``healthy``, ``unhealthy`` or ``done`` (a one-shot that ended well); None while it does not run.
        url: where a person opens it.
        version: what it says of its version.
        uptime: seconds since it started.
        detail: why it is not healthy, in the engine's words or its own.
        full: what of it has no room left: ``backend store``, ``artifacts``, ``temporary files``.
    """

    name: str
    state: str
    health: str | None = None
    url: str | None = None
    version: str | None = None
    uptime: float | None = None
    detail: str | None = None
    full: list[str] | None = None

    @property
    def ready(self) -> bool:
        """Whether this service needs no more waiting for."""
        return self.health in {"healthy", "done"}

    def as_json(self) -> dict[str, Any]:
        """The shape of one service in ``up --json`` and ``status --json``."""
        return {name: value for name, value in vars(self).items() if value is not None}


def gone(program: str, error: OSError) -> UserError:
    """What to say of a program that is not there any more."""
    return UserError(f"cannot run {program}: {error.strerror}", "make what is missing anew: invoke up")


def answer(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a command of ours prints.

    Raises:
        UserError: it failed; with the message that it ended with, whatever it wrote before.
    """
    try:
        ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    except OSError as error:
        raise gone(command[0], error) from None
    if ended.returncode != 0:
        _, ours, message = ended.stderr.strip().rpartition("error: ")
        last = message.splitlines()[-1:] or [f"{command[0]} ended with exit code {ended.returncode}"]
        raise UserError(message if ours else last[0])
    return ended.stdout


class Engine(ABC):
    """One deployment on one engine."""

    name: ClassVar[str]

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        reserve.watch(deployment)

    @classmethod
    @abstractmethod
    def why_not(cls) -> tuple[str, str] | None:
        """None where this engine can run here; else what is missing and the command that mends it."""

    @abstractmethod
    def up(self, *, timeout: float, services: Sequence[str] | None = None) -> None:
        """Start what does not run, restart what changed, and wait until all of it is ready.

        Args:
            timeout: seconds until the wait ends with the state and the last log lines.
            services: some of the stack's services; by default all.

        Raises:
            UserError: a port is taken, a file cannot be written, or something does not become ready.
        """

    @abstractmethod
    def down(self, *, volumes: bool) -> None:
        """Stop and remove what runs; data stays unless `volumes`.

        Raises:
            UserError: the engine could not stop all of it; with the engine's message.
        """

    @abstractmethod
    def services(self) -> list[ServiceStatus]:
        """Every service of the stack, in start order."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes of memory by running service, shared pages counted once where the system tells (PSS)."""

    @abstractmethod
    def logs(self, *, service: str | None, follow: bool, tail: int) -> None:
        """Write log lines to standard output; Ctrl-C ends it.

        Args:
            service: of one service; None for all.
            follow: go on with what comes.
            tail: how many of the last lines, of each service.

        Raises:
            UserError: there are none yet.
        """

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        folders: Sequence[Path] = (),
        output: IO[str] | None = None,
    ) -> int:
        """Run a maintenance command where it reaches the stores, on this terminal; Ctrl-C ends it, too.

        Args:
            argv: words after ``python``, for example ``-m cleanup --dry-run``.
            environment: further variables.
            folders: absolute paths of this machine that it finds under the same path; what it writes there belongs
                to this user.
            output: a file that takes its standard output.

        Returns:
            Its exit code.

        Raises:
            UserError: it cannot be given one of the folders, or what it runs in is gone.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Make what the deployment's MLflow runs in, and have `run` use it; nothing that runs is changed.

        Raises:
            UserError: the version cannot be had, or not be installed.
        """

    @property
    @abstractmethod
    def inner_url(self) -> str:
        """The tracking server's address for a command that `capture` starts."""

    @abstractmethod
    def secret(self, name: str) -> Path:
        """Where a command that `run` starts finds the file of a secret."""

    @abstractmethod
    def capture(self, argv: Sequence[str]) -> str:
        """Run a short command where it reaches the stores, and return what it printed.

        Raises:
            UserError: it failed; with its own message.
        """

    @abstractmethod
    def data(self) -> list[str]:
        """What ``down --volumes`` removes for good, a line each."""

    def write(self, files: dict[str, str]) -> None:
        """Write rendered files, and before them the secrets and the gateway's inputs that they name.

        Raises:
            UserError: a secret is gone, or a file cannot be written.
        """
        made = secrets.ensure(self.deployment, secrets_named(files), engine=self.name)
        inputs.write(self.deployment, engine=self.name)
        for path, text in files.items():
            write_private(self.deployment.state / path, text)
        record.remember(self.deployment, self.name, secrets=made)

    def measure(self) -> list[Disk]:
        """Look at the disks that hold the data where this machine does not see them, and have `disks` know them."""
        return []

    def check_room(self) -> None:
        """What cannot end well does not begin.

        Raises:
            UserError: one of them is full.
        """
        if any(disk.full for disk in self.measure()):
            raise UserError(*explain())

    def keep_room(self, *, spare: int = RESERVE) -> None:
        """Set room aside beside the data where that leaves so many bytes free (see `stacks.state.reserve`)."""
        reserve.keep(self.deployment, spare=spare)

    def give_up_room(self) -> None:
        """Let go what was set aside where no room is left."""
        reserve.give_up(self.deployment)

    @contextmanager
    def room_at_hand(self) -> Iterator[None]:
        """Have some room in the block even on a full disk; it is set aside again afterwards, as far as it is left."""
        self.give_up_room()
        try:
            yield
        finally:
            self.keep_room(spare=0)

    def forget(self) -> None:
        """Remove what the state directory holds beside data and logs: rendered files, secrets, the record."""
        state = self.deployment.state
        for folder in ("secrets", inputs.FOLDER, environments.FOLDER):
            shutil.rmtree(state / folder, ignore_errors=True)
        for name in (*FRAMES.values(), RECORD, JOURNAL):
            (state / name).unlink(missing_ok=True)

    def stores(self) -> dict[str, Any]:
        """What the stores hold (see `services.stores.examine`); empty while they cannot be asked."""
        try:
            return dict(json.loads(self.capture(["-m", "services.stores"])))
        except (UserError, json.JSONDecodeError):
            return {}

    @contextmanager
    def without_server(self) -> Iterator[None]:
        """Have nothing write to the stores as long as the block lasts; what ran before it runs again after it.

        Raises:
            UserError: the stack does not come up again.
        """
        writers = self.deployment.having("writes")
        running = [
            status.name for status in self.services() if status.name in writers and status.state not in AWAY
        ]
        if running:
            note(f"stopping {' and '.join(running)}")
        for name in running:
            self.stop(name)
        try:
            yield
        finally:
            if running:
                note("bringing the stack up again")
                self.up(timeout=RESTART_SECONDS)

    def no_room(self, status: ServiceStatus) -> UserError:
        """What to say of a service that is not ready for want of room: waiting longer would not help."""
        self.measure()
        return UserError(f"service '{status.name}' runs and is not ready: {status.detail}", *explain()[1:])

    @abstractmethod
    def stop(self, service: str) -> None:
        """Stop one service; the next `up` starts it again."""

    def looked_at(self, look: Callable[[str], ServiceStatus]) -> list[ServiceStatus]:
        """The status of every service, asked side by side: one that hangs holds up no other."""
        names = self.deployment.services
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            return list(pool.map(look, names))

    def probed(self, name: str, *, state: str, **facts: Any) -> ServiceStatus:
        """The status of a running service, its health asked at its published address."""
        service = SERVICES[name]
        url = service.url(self.deployment.settings)
        asked = service.ready_url(self.deployment.settings)
        answer = probe(asked) if asked else {}
        said = answer or {}
        return ServiceStatus(
            name,
            state,
            health="healthy" if passes(answer) else "unhealthy",
            url=url,
            version=said.get("version"),
            detail=said.get("problem"),
            full=said.get("full"),
            **facts,
        )
