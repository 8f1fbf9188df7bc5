"""The host engine: the services as processes of this user, under supervisord."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import psutil

from console import UserError, note
from process.ports import listens
from stacks.definition.rendering import process_environment, render
from stacks.definition.services import SERVICES
from stacks.engines.base import ATTEMPTS, Engine, ServiceStatus, answer, gone
from stacks.engines.ports import check_port_is_free
from stacks.engines.supervisord import Supervisord, last_lines
from stacks.state import environments, reserve, secrets
from stacks.state.record import make_private_dir, nothing_started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stacks.definition.deployment import Deployment

# supervisor's process states (supervisord.org/subprocess.html) in our words.
_STATES = {
    "STOPPED": "stopped",
    "STARTING": "starting",
    "RUNNING": "running",
    "BACKOFF": "failed",
    "STOPPING": "stopped",
    "EXITED": "exited",
    "FATAL": "failed",
    "UNKNOWN": "failed",
}


_GIVE_UP = 15.0  # seconds of failing to start again and again; it will not come by itself
_FOLDERS = ("data", "logs", "prometheus")


@dataclass
class _Wait:
    """What `up` remembers of a service it waits for.

    Attributes:
        logged: the size of its log before.
        failing_since: since when it fails, without a break.
        starts: when it was started, each time that it was; as `begun`, when the wait was, in seconds of the day.
    """

    logged: int
    failing_since: float | None = None
    starts: set[int] = field(default_factory=set)
    begun: float = field(default_factory=time.time)


class HostEngine(Engine):
    """supervisord, one per deployment, spoken to over its socket in the state directory."""

    name = "host"

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self._supervisord = Supervisord(deployment)

    @classmethod
    def why_not(cls) -> tuple[str, str] | None:
        """Supervisord needs a POSIX system and comes with the requirements."""
        if os.name != "posix":
            return ("supervisord needs Linux, macOS or WSL", "wsl --install")
        return None

    def up(self, *, timeout: float, services: Sequence[str] | None = None) -> None:
        """See `Engine.up`."""
        files = render(self.deployment, self.name)
        if self._supervisord.pid() is not None and not self._supervisord.usable():
            note("stopping what was started before the stack was moved, or does not answer any more")
            self._supervisord.stop()
        self._check_ports()
        environments.ensure_environment(self.deployment)
        deadline = time.monotonic() + timeout
        needed = [folder for name in self.deployment.services for folder in SERVICES[name].folders]
        for folder in ("logs", "data", *needed):
            make_private_dir(self.deployment.state / folder)
        self.write(files)
        fresh = self._supervisord.pid() is None
        if fresh:
            self._supervisord.start(_clean_environment(self.deployment), deadline)
            changed = set(self.deployment.services)
        else:
            changed = self._supervisord.apply_changes()
        wanted = [name for name in self.deployment.services if services is None or name in services]
        external = [name for name in wanted if SERVICES[name].checks_external(self.deployment.settings)]
        try:
            self._start(external, deadline, changed)
        except UserError as error:
            if fresh:
                self.down(volumes=False)
                nothing_started(self.deployment)
                raise UserError(f"nothing was started: {error.message}", *error.hints) from None
            raise
        self._start([name for name in wanted if name not in external], deadline, changed)

    def down(self, *, volumes: bool) -> None:
        """See `Engine.down`."""
        self._supervisord.stop()
        if volumes:
            for folder in (self.deployment.postgres_data, *map(self.deployment.state.joinpath, _FOLDERS)):
                shutil.rmtree(folder, ignore_errors=True)
            reserve.remove(self.deployment)
            with suppress(OSError):  # root's lies in a folder of its own; it goes once nothing else is in it
                self.deployment.postgres_data.parent.rmdir()
            self.forget()

    def stop(self, service: str) -> None:
        """See `Engine.stop`."""
        if self._supervisord.pid() is not None:
            self._supervisord.stop_program(service)

    def services(self) -> list[ServiceStatus]:
        """See `Engine.services`."""
        if self._supervisord.pid() is None:
            return [ServiceStatus(name, "stopped") for name in self.deployment.services]
        known = self._supervisord.infos()
        return self.looked_at(lambda name: self._status(name, known.get(name)))

    def memory(self) -> dict[str, int]:
        """See `Engine.memory`."""
        if self._supervisord.pid() is None:
            return {}
        running = {name: info["pid"] for name, info in self._supervisord.infos().items() if info["pid"]}
        used = {name: _memory(pid) for name, pid in running.items()}
        return {name: count for name, count in used.items() if count is not None}

    def logs(self, *, service: str | None, follow: bool, tail: int) -> None:
        """See `Engine.logs`."""
        names = [service] if service else list(self.deployment.services)
        files = [str(path) for name in names if (path := self._log(name)).exists()]
        if not files:
            raise UserError(
                f"there are no logs yet in {self.deployment.state}/logs",
                f"start the stack: invoke up --stack={self.deployment.name}",
            )
        command = ["tail", "-n", str(tail), *(["-F"] if follow else []), *files]
        with suppress(KeyboardInterrupt):
            subprocess.run(command, check=False)

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        folders: Sequence[Path] = (),
        output: IO[str] | None = None,
    ) -> int:
        """See `Engine.run`; a process of this user reaches every folder as it is."""
        del folders
        environments.require(self.deployment)
        command = [self.deployment.mlflow_python, *argv]
        variables = {**self._environment(), **environment}
        try:
            return subprocess.run(command, env=variables, stdout=output, check=False).returncode
        except OSError as error:
            raise gone(command[0], error) from None

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        environments.ensure_environment(self.deployment)

    @property
    def inner_url(self) -> str:
        """See `Engine.inner_url`."""
        return str(SERVICES[self.deployment.server].url(self.deployment.settings))

    def secret(self, name: str) -> Path:
        """See `Engine.secret`."""
        return secrets.folder(self.deployment) / name

    def capture(self, argv: Sequence[str]) -> str:
        """See `Engine.capture`."""
        environments.require(self.deployment)
        return answer([self.deployment.mlflow_python, *argv], self._environment())

    def data(self) -> list[str]:
        """See `Engine.data`."""
        folders = [self.deployment.postgres_data, *map(self.deployment.state.joinpath, _FOLDERS)]
        return [str(folder) for folder in folders if folder.exists()]

    def _environment(self) -> dict[str, str]:
        return {**_clean_environment(self.deployment), **process_environment(self.deployment)}

    def _check_ports(self) -> None:
        """Find a taken port before anything is started; what runs already may keep its own."""
        held = self._held()
        settings = self.deployment.settings
        for service in map(SERVICES.__getitem__, self.deployment.services):
            for host, port in ((settings.host, service.port), ("127.0.0.1", service.local_port)):
                if port and port(settings) not in held:
                    check_port_is_free(host, port(settings), self.deployment)

    def _held(self) -> set[int]:
        """The ports that processes of this deployment listen on."""
        pid = self._supervisord.pid()
        family = [] if pid is None else psutil.Process(pid).children(recursive=True)
        ports = set()
        for process in family:
            with suppress(psutil.Error):
                ports |= {c.laddr.port for c in process.net_connections("tcp") if c.laddr}
        return ports

    def _start(self, names: list[str], deadline: float, changed: set[str]) -> None:
        """Start services and wait until all of them are ready."""
        waits = {name: _Wait(_size(self._log(name))) for name in names}
        infos = self._supervisord.infos()
        idle = {name for name in names if not self._runs(name, infos[name])}
        away = any(not SERVICES[name].oneshot for name in idle)
        for name in names:
            # whatever starts finds its steps done for the data that is there now
            if name in changed | idle or (away and SERVICES[name].oneshot):
                self._supervisord.start_program(name)
        while waits:
            infos = self._supervisord.infos()
            for name, wait in list(waits.items()):
                if self._settled(name, infos[name], wait, deadline):
                    del waits[name]
            time.sleep(0.05)

    def _runs(self, name: str, info: Any) -> bool:
        """Whether a service runs, or is a step that has ended well."""
        status = self._status(name, info)
        return status.state in {"running", "starting"} or (SERVICES[name].oneshot and status.ready)

    def _settled(self, name: str, info: Any, wait: _Wait, deadline: float) -> bool:
        """Whether a service is ready; a UserError when it will not become so, or not in time."""
        status = self._status(name, info)
        if status.ready:
            return True
        now = time.monotonic()
        wait.failing_since = (wait.failing_since or now) if status.state == "failed" else None
        if info and info["start"] >= int(wait.begun):
            wait.starts.add(info["start"])
        shown = last_lines(self._log(name), since=wait.logged)
        if status.state in {"failed", "exited"} and len(wait.starts) >= ATTEMPTS:
            raise UserError(
                f"service '{name}' ends whenever it is started: {status.detail}",
                *shown,
                f"all of it: invoke logs --stack={self.deployment.name} --service={name}",
            )
        if SERVICES[name].oneshot and status.state in {"exited", "failed"}:
            raise UserError(
                f"service '{name}' failed: {status.detail}",
                *shown,
                f"all of it: invoke logs --stack={self.deployment.name} --service={name}",
            )
        if status.full:
            raise self.no_room(status)
        said = status.health or status.detail
        if now > deadline or now - (wait.failing_since or now) > _GIVE_UP:
            raise UserError(
                f"service '{name}' is not ready in time: {status.state}{f', {said}' if said else ''}",
                *shown,
                f"look on: invoke logs --stack={self.deployment.name} --service={name} --follow",
                "or wait longer: invoke up --timeout=SECONDS",
            )
        return False

    def _status(self, name: str, info: Any) -> ServiceStatus:
        if info is None:
            return ServiceStatus(name, "stopped")
        state = _STATES[info["statename"]]
        if SERVICES[name].oneshot:
            if state == "exited" and info["exitstatus"] == 0:
                return ServiceStatus(name, state, health="done")
            detail = f"exit code {info['exitstatus']}" if state == "exited" else info["description"]
            return ServiceStatus(name, state, detail=detail)
        if state != "running":
            return ServiceStatus(name, state, detail=info["spawnerr"] or info["description"])
        local_port = SERVICES[name].local_port
        if local_port and not listens(local_port(self.deployment.settings), SERVICES[name].greeting):
            return ServiceStatus(name, state, health="unhealthy", detail="does not answer")
        return self.probed(name, state=state, uptime=float(info["now"] - info["start"]))

    def _log(self, name: str) -> Path:
        return self.deployment.state / "logs" / f"{name}.log"


def _memory(pid: int) -> int | None:
    """Bytes of a process and its descendants, shared pages counted once where the system tells (PSS)."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(_resident(process) for process in family)
    except psutil.Error:
        return None


def _resident(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _clean_environment(deployment: Deployment) -> dict[str, str]:
    """This process' environment without what would steer MLflow, or be a provider key, behind the settings' back.

    A proxy is for providers and not for the stack's own services.
    """
    steering = ("MLFLOW_", "_MLFLOW_", "PYTHON", "AWS_", "PG", "SUPERVISOR_")
    keys = deployment.gateway.exported if deployment.gateway else ()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(steering) and name not in keys
    }
    for name in ("NO_PROXY", "no_proxy"):
        own = ("localhost", "127.0.0.1", "::1", deployment.settings.host)
        kept[name] = ",".join(dict.fromkeys((*filter(None, os.environ.get(name, "").split(",")), *own)))
    return kept
