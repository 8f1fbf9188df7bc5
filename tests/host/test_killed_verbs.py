"""SIGKILL at any call of `up`, `down`, `secrets-rotate` and `upgrade`: the next command heals, and nothing is left.

The verbs, supervisord and the state directory are the real ones; the services are stand-ins, which start at once.
``--kills=20`` kills each as often (an upgrade, which takes longest, half as often).
"""

from __future__ import annotations

import os
import shutil
import sys
import xmlrpc.client
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from supervisor.xmlrpc import SupervisorTransport

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import ROOT
from stacks.engines.readiness import passes, probe
from stacks.state import environments
from stacks.state.environments import pinned
from stacks.state.record import JOURNAL, read
from stacks.verbs import upgrade
from tests.support import old_databases
from tests.support.killed import Killer
from tests.support.old_databases import statements
from tests.support.standin import place
from tests.support.upgrades import OLD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODULES = (
    "invoke.main",
    "stacks.verbs.lifecycle",
    "stacks.verbs.rotation",
    "supervisor.xmlrpc",
    "jinja2",
    "tasks",
)


class Killable:
    """A stack whose verbs are run in processes that can be killed.

    Attributes:
        kill: counts the hits.
    """

    def __init__(self, folder: Path, tries: int, name: str = "quickstart") -> None:
        self.stack = StackUnderTest(name, "host", folder, free_ports())
        self.program = folder / "standin.py"
        shutil.copy(Path(place("")).with_name("standin.py"), self.program)
        self.python = folder / "python"
        self.python.write_text(
            f"""#!/bin/sh
case "$*" in
*process.tether*|*supervisor.supervisord*|*"-m backups"*|*"-m database inspect"*) exec {sys.executable} "$@" ;;
esac
exec {sys.executable} -E -S {self.program} "$@"
"""
        )
        self.python.chmod(0o755)
        self.kill = Killer(*MODULES, tries=tries)

    def invoke(self, *words: str, limit: int = 0) -> int:
        """Run a task, and kill it at a call; returns the calls that it came to."""
        ours = {
            name: value for name, value in self.stack.environment().items() if os.environ.get(name) != value
        }
        argv = ["invoke", words[0], f"--stack={self.stack.name}", *words[1:]]
        return self.kill(limit, _invoke, argv, ours, str(self.python))

    def up(self, *words: str, limit: int = 0) -> int:
        return self.invoke("up", "--engine=host", *words, limit=limit)

    def family(self) -> list[psutil.Process]:
        """What runs of it, supervisord first."""
        configuration = str(self.stack.state / "supervisord.conf")
        keepers = [
            child
            for child in psutil.process_iter(["cmdline"])
            if configuration in (child.info["cmdline"] or [])
        ]
        return [process for keeper in keepers for process in (keeper, *keeper.children(recursive=True))]

    def is_up(self) -> bool:
        """Whether all of it runs, once."""
        keepers = [process for process in self.family() if "supervisor.supervisord" in process.cmdline()]
        transport = SupervisorTransport(None, None, f"unix://{self.stack.state / 'supervisord.sock'}")
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        infos: Any = server.supervisor.getAllProcessInfo()
        return (
            len(keepers) == 1
            and {info["statename"] for info in infos} == {"RUNNING", "EXITED"}
            and all(info["exitstatus"] == 0 for info in infos)
            and passes(probe(f"{self.stack.url}/ready"))
            and read(self.stack.state).engine == "host"
        )


def test_an_upgrade_killed_anywhere_is_put_back_by_up(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Backup, migration and the way back are the real ones, on what MLflow 3.15.1 left."""
    subject = Killable(tmp_path, request.config.getoption("--kills") // 2, name="local")
    state, database = subject.stack.state, subject.stack.state / "data" / "mlflow.db"
    subject.up("--set", f"mlflow_version={OLD}")
    old_databases.sqlite_database(OLD, database)
    subject.invoke("down")
    shutil.copytree(state, tmp_path / "pristine")
    before, words = (
        statements(database),
        ("upgrade", f"--to={pinned()}", "--yes", f"--backups={tmp_path}/sets"),
    )
    subject.up()
    calls = subject.invoke(*words)
    after = statements(database)
    assert after != before
    for limit in subject.kill.limits(calls):
        subject.invoke("down")
        shutil.rmtree(state)
        shutil.copytree(tmp_path / "pristine", state)
        subject.up()
        subject.invoke(*words, limit=limit)
        subject.up()
        assert subject.is_up()
        assert not (state / JOURNAL).exists()
        assert (read(state).mlflow_version, statements(database)) in [(OLD, before), (pinned(), after)], limit
    subject.invoke("down", "--volumes", "--yes")
    subject.kill.report("upgrade")


def _invoke(argv: Sequence[str], environment: dict[str, str], python: str) -> None:
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.executable = python
    from invoke.main import program

    vars(environments).update(
        interpreter=lambda *_: python, ensure_environment=lambda *_: None, lock=lambda *_, **__: None
    )
    upgrade.ENVIRONMENT_BYTES = 0

    program.run(list(argv))


@pytest.fixture
def killable(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Killable]:
    subject = Killable(tmp_path, request.config.getoption("--kills"))
    yield subject
    subject.up()
    subject.invoke("down", "--volumes", "--yes")
    assert subject.family() == []


def test_up_killed_anywhere_is_healed_by_up(killable: Killable) -> None:
    killable.up()
    killable.invoke("down")
    calls = killable.up()  # the first has more to do
    for limit in killable.kill.limits(calls):
        killable.invoke("down")
        killable.up(limit=limit)
        killable.up()
        assert killable.is_up()
    killable.kill.report("up")


def test_down_killed_anywhere_is_healed_by_down_and_up(killable: Killable) -> None:
    killable.up()
    calls = killable.invoke("down")
    for limit in killable.kill.limits(calls):
        killable.up()
        killable.invoke("down", limit=limit)
        killable.invoke("down")
        assert killable.family() == []
    killable.up()
    assert killable.is_up()
    killable.kill.report("down")


def test_a_rotation_killed_anywhere_is_ended_by_up(killable: Killable) -> None:
    killable.up()
    secrets = killable.stack.state / "secrets"
    calls = killable.invoke("secrets-rotate", "--yes")
    for limit in killable.kill.limits(calls):
        killable.invoke("secrets-rotate", "--yes", limit=limit)
        killable.up()  # each service opens what it closed before, or this fails
        assert killable.is_up()
        assert not list(secrets.glob("rotation*"))
        assert (secrets / "postgres-password-previous").read_text() == ""
        assert (killable.program.with_name("closed-with-superuser")).read_text() == (
            secrets / "postgres-password"
        ).read_text()
        assert (killable.program.with_name("closed-with-passphrase")).read_text() == (
            secrets / "gateway-passphrase"
        ).read_text()
    killable.kill.report("secrets-rotate")
