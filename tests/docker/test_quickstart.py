"""Quickstart on the Compose engine: the same trials in containers, and how closed those are."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from develop.scratch.ports import free_port, free_ports
from develop.scratch.stack import StackUnderTest
from stacks.engines.programs import compose_command
from tests.support import quickstart, secrecy, story, survival
from tests.support.containers import volume
from tests.support.inside import Inside, model_is_in_both_stores, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.docker
RUNNING = ("postgres", "object-store", "mlflow")


def docker(*words: str) -> str:
    """What a docker command prints; a failure fails with what it said."""
    answer = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, f"{words}\n{answer.stdout}{answer.stderr}"
    return answer.stdout


class Containers(Inside):
    """A stack's containers, found by Compose's labels."""

    @functools.cached_property
    def project(self) -> str:
        return str(json.loads((self.stack.state / "stack.json").read_text())["project"])

    def all(self) -> dict[str, Any]:
        """What the engine says of each container, by service."""
        identities = docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}"
        )
        containers = json.loads(docker("inspect", *identities.split()))
        return {
            container["Config"]["Labels"]["com.docker.compose.service"]: container for container in containers
        }

    def python(self, code: str) -> str:
        # Through the entrypoint, which hands the secrets over.
        return run_python(
            ["docker", "exec", "--interactive", self.all()["mlflow"]["Id"], "python", "-"], code
        )

    def kill(self, service: str) -> None:
        """Kill the process itself: ``docker kill`` would count as a wish of the user, and nothing would restart."""
        os.kill(self.all()[service]["State"]["Pid"], signal.SIGKILL)

    def identities(self) -> dict[str, object]:
        containers = self.all()
        return {
            service: (containers[service]["Id"], containers[service]["State"]["Pid"]) for service in RUNNING
        }

    def watched(self) -> Callable[[], list[object]]:
        wanted = f"label=org.mlflow-stacks.project={self.project}"
        return lambda: [*docker("ps", "--all", "--quiet", "--filter", wanted).split()]

    def places(self) -> dict[str, str]:
        containers = self.all()
        images = {container["Image"] for container in containers.values()}
        config = [*compose_command(), "--file", str(self.stack.state / "compose.yaml"), "config"]
        return {
            "docker inspect": json.dumps(containers),
            "docker history": "".join(docker("history", "--no-trunc", image) for image in images),
            "docker compose config": subprocess.run(
                config, capture_output=True, text=True, check=True
            ).stdout,
        }


@pytest.fixture(scope="module")
def bridge() -> str:
    """The address of this machine on Docker's default bridge, which containers of every network reach."""
    network = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    return str(network.get("Gateway") or ipaddress.ip_network(network["Subnet"])[1])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[StackUnderTest]:
    """Start quickstart once, with a provider on the bridge's address behind its gateway."""
    with quickstart.running("compose", tmp_path_factory.mktemp("quickstart"), bridge) as subject:
        yield subject


@pytest.fixture(scope="module")
def inside(stack: StackUnderTest) -> Containers:
    return Containers(stack)


class TestOnCompose(quickstart.OnEitherEngine):
    """What the host engine runs as well."""


def test_only_the_server_is_published_and_only_on_loopback(stack: StackUnderTest, inside: Containers) -> None:
    published = {
        (service, binding["HostIp"], int(binding["HostPort"]))
        for service, container in inside.all().items()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {("mlflow", "127.0.0.1", stack.settings["port"])}


def test_the_stores_are_reached_from_their_own_network_alone(inside: Containers) -> None:
    containers = inside.all()
    network = f"{inside.project}_stores"
    assert json.loads(docker("network", "inspect", network))[0]["Internal"] is True
    places = []
    for service, port in (("postgres", 5432), ("object-store", 9000)):
        attached = containers[service]["NetworkSettings"]["Networks"]
        assert list(attached) == [network]
        places += [(service, port), (attached[network]["IPAddress"], port)]
    code = (
        "import socket\n"
        f"for place in {places!r}:\n"
        "    try:\n"
        "        socket.create_connection(place, timeout=3)\n"
        "        print('reached', place)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    assert inside.python(code).count("reached") == 4
    stranger = ["docker", "run", "--rm", "--interactive", "--network", f"{inside.project}_default"]
    image = containers["mlflow"]["Image"]
    assert run_python([*stranger, "--entrypoint", "python", image, "-"], code) == ""


def test_every_container_gets_nothing_it_does_not_need(inside: Containers) -> None:
    containers = inside.all()
    assert len(containers) == 7
    for service, container in containers.items():
        host = container["HostConfig"]
        oneshot = service not in RUNNING
        facts = {
            "read-only root": host["ReadonlyRootfs"],
            "capabilities": (host["CapDrop"], host["CapAdd"]),
            "security": host["SecurityOpt"],
            "memory": host["Memory"],
            "pids": host["PidsLimit"],
            "init": host["Init"],
            "restart": host["RestartPolicy"]["Name"],
            "log": (host["LogConfig"]["Type"], host["LogConfig"]["Config"]),
            "privileged": host["Privileged"],
            "stack": container["Config"]["Labels"]["org.mlflow-stacks.stack"],
            "project": container["Config"]["Labels"]["org.mlflow-stacks.project"],
        }
        assert facts == {
            "read-only root": True,
            "capabilities": (["ALL"], None),
            "security": ["no-new-privileges:true"],
            "memory": 2 * 2**30,
            "pids": 512,
            "init": True,
            "restart": "no" if oneshot else "unless-stopped",
            "log": ("json-file", {"max-file": "3", "max-size": "10m"}),
            "privileged": False,
            "stack": "quickstart",
            "project": inside.project,
        }, service
    for service in RUNNING:
        status = (
            line.split()
            for line in docker("exec", containers[service]["Id"], "cat", "/proc/1/status").splitlines()
        )
        uids = next(words[1:] for words in status if words[0] == "Uid:")
        assert set(uids) == {"999" if service == "postgres" else "10001"}, service


def test_a_step_that_fails_fails_up_and_is_named(stack: StackUnderTest) -> None:
    password = stack.state / "secrets" / "postgres-password"
    right = password.read_text()
    password.chmod(0o600)
    password.write_text("another password")
    try:
        said = stack.invoke("up", "--stack=quickstart", "--engine=compose", expect=1).stderr
    finally:
        password.write_text(right)
        password.chmod(0o444)
    assert "error: service 'role' failed: exited, exit code 1" in said
    assert "does not let its superuser in" in said
    stack.up()


def test_a_full_store_is_told_to_the_client_and_serves_again_once_there_is_room(tmp_path: Path) -> None:
    small = StackUnderTest("minio-postgres", "compose", tmp_path / "state", free_ports())
    options = ("type=tmpfs", "device=tmpfs", "o=size=30m,uid=10001,gid=10001,mode=750")
    name = volume(small, "object-store-data", *options)

    with quickstart.taken_down(small):
        small.up()
        disk = Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())
        survival.full_store_is_told(small, disk, tmp_path)


def test_rotated_secrets_open_every_door_and_lose_nothing(inside: Containers, tmp_path: Path) -> None:
    secrecy.rotation_loses_nothing(inside, tmp_path)


def test_external_stores_are_checked_first_and_then_used(
    stack: StackUnderTest, bridge: str, tmp_path: Path
) -> None:
    """The stores are containers that no stack knows of; a container reaches them at the bridge's address."""
    images = json.loads((stack.state / "stack.json").read_text())["images"]
    key, secret, password = (secrets.token_hex(12) for _ in range(3))
    environment = {
        "postgres": {"POSTGRES_PASSWORD": password, "POSTGRES_DB": "tracking"},
        "object-store": {"MINIO_ROOT_USER": key, "MINIO_ROOT_PASSWORD": secret},
    }
    containers, ports = {}, {}
    for name, command, port in (
        ("postgres", ["postgres"], 5432),
        ("object-store", ["server", "/data"], 9000),
    ):
        variables = [word for item in environment[name].items() for word in ("--env", "=".join(item))]
        flags = ["--detach", "--publish", f"{bridge}::{port}", *variables]
        containers[name] = docker("run", *flags, images[name], *command).strip()
        ports[name] = docker("port", containers[name], str(port)).strip().rpartition(":")[2]
    right = {
        "port": free_port(),
        "database": f"postgresql://postgres:{password}@{bridge}:{ports['postgres']}/tracking",
        "object_store": "external",
        "s3_endpoint": f"http://{bridge}:{ports['object-store']}",
        "s3_access_key": key,
        "s3_secret_key": secret,
    }
    subject = StackUnderTest("minio-postgres", "compose", tmp_path, right)
    try:
        docker("exec", containers["object-store"], "mkdir", "/data/mlflow")
        for setting, value, message in (
            ("s3_bucket", "nosuch", "the bucket 'nosuch'"),
            ("database", str(right["database"]).replace(password, "wrong-password"), "password"),
        ):
            attempt = StackUnderTest(subject.name, "compose", tmp_path, {**right, setting: value})
            said = attempt.invoke("up", "--stack=minio-postgres", "--engine=compose", expect=1).stderr
            assert "nothing was started" in said
            assert message in said
            assert not [value for value in (key, secret, password, "wrong-password") if value in said]
            assert (
                docker(
                    "ps",
                    "--all",
                    "--quiet",
                    "--filter",
                    f"label=com.docker.compose.project={Containers(attempt).project}",
                )
                == ""
            )
        answer = subject.up()
        assert [service["name"] for service in answer["services"]] == ["bucket", "schema", "mlflow"]
        told = story.tell(subject.url, tmp_path, megabytes=1)
        story.check(subject.url, told, tmp_path)
        model_is_in_both_stores(Containers(subject), told)
        secrecy.no_secret_in(subject, {"inspect": json.dumps(Containers(subject).all())})
    finally:
        if (subject.state / "stack.json").exists():
            subject.down("--volumes", "--yes")
        docker("rm", "--force", "--volumes", *containers.values())
