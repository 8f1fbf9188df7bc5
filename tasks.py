"""The Invoke namespace: wiring only. ``invoke --list`` shows it, ``invoke --help TASK`` explains one."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.tasks import task

from console import user_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from invoke.context import Context


def answers(body: Callable[..., Any]) -> Callable[..., Any]:
    """A task whose user errors end with a message and exit code 1; ``invoke --debug TASK`` shows the traceback."""

    @functools.wraps(body)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with user_errors(debug=logging.getLogger("invoke").isEnabledFor(logging.DEBUG)):
            body(*args, **kwargs)

    return wrapped


STACK = {"stack": "the stack to work on; `invoke stacks` lists them"}
JSON = {"json": "print one JSON object and nothing else"}
SETTING = {"set": "a setting for this run, KEY=VALUE; may be given again"}
ENGINE = {"engine": "auto, compose or host"}
DOCKER = {"require-docker": "fail where a test cannot run because no Docker engine answers"}
DATABASE = {"backend-store-uri": "a database that belongs to no stack of this checkout"}
ARTIFACTS = {"artifacts-destination": "where that database's artifacts are"}
TO = {"to": "place of the backups: a folder, or s3://BUCKET/PREFIX"}
WAIT = {"wait": "seconds to wait for another migrate, cleanup, backup or restore of the same database"}
YES = {"yes": "answer the question with yes"}


@task(help=JSON)
@answers
def stacks(_: Context, json: bool = False) -> None:
    """Run: List the stacks and what each one runs."""
    from stacks.verbs import report

    report.catalogue(as_json=json)


@task(
    help={**STACK, **ENGINE, **SETTING, **JSON, "timeout": "seconds to wait until all of it is ready"},
    iterable=["set"],
)
@answers
def up(
    _: Context,
    stack: str = "local",
    engine: str = "auto",
    set: list[str] | None = None,
    timeout: float = 180.0,
    json: bool = False,
) -> None:
    """Run: Start a stack and wait until all of it is ready."""
    from stacks.state.opening import open_deployment
    from stacks.verbs import lifecycle, report

    deployment = open_deployment(stack, set)
    report.up(lifecycle.up(deployment, engine=engine, timeout=timeout), as_json=json)


@task(help={**STACK, **YES, "volumes": "remove the data too, after a question"})
@answers
def down(_: Context, stack: str = "local", volumes: bool = False, yes: bool = False) -> None:
    """Run: Stop a stack; its data stays unless --volumes."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import lifecycle

    lifecycle.down(open_recorded(stack), volumes=volumes, yes=yes)


@task(help={**STACK, **JSON})
@answers
def status(_: Context, stack: str = "local", json: bool = False) -> None:
    """Run: Show health, version, memory and disk use."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import lifecycle, report

    report.status(lifecycle.status(open_recorded(stack)), as_json=json)


@task(
    help={
        **STACK,
        "service": "one service instead of all",
        "follow": "go on until Ctrl-C",
        "tail": "lines to begin with",
    }
)
@answers
def logs(_: Context, stack: str = "local", service: str = "", follow: bool = False, tail: int = 100) -> None:
    """Run: Print the logs of one service or all."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import lifecycle

    lifecycle.logs(open_recorded(stack), service=service or None, follow=follow, tail=tail)


@task(
    help={**STACK, **ENGINE, **SETTING, "output": "folder to write the files to, instead of printing them"},
    iterable=["set"],
)
@answers
def render(
    _: Context, stack: str = "local", engine: str = "auto", set: list[str] | None = None, output: str = ""
) -> None:
    """Run: Print the files that `up` would use."""
    from stacks.state.opening import open_deployment
    from stacks.verbs import lifecycle, report

    folder = Path(output) if output else None
    report.rendered(lifecycle.render(open_deployment(stack, set), engine=engine, output=folder), output)


@task(
    name="secrets-rotate",
    help={**STACK, **YES, **JSON, "timeout": "seconds to wait until the restarted stack is ready"},
)
@answers
def secrets_rotate(
    _: Context, stack: str = "local", yes: bool = False, timeout: float = 180.0, json: bool = False
) -> None:
    """Data: Give a stack new passwords and keys."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import report, rotation

    report.rotated(rotation.rotate(open_recorded(stack), yes=yes, timeout=timeout), as_json=json)


@task(help=JSON)
@answers
def doctor(_: Context, json: bool = False) -> None:
    """Run: Show what this machine lacks, and what mends it."""
    from stacks.verbs import doctor, report

    report.doctor(doctor.examine(), as_json=json)


@task(
    help={
        "image": "one image instead of all",
        "from-packages": "make every image, bases included, from package mirrors; no container registry is asked",
        "push": "registry to push what was built to",
        "platform": "platform to build for, such as linux/arm64; may be given again",
    },
    iterable=["platform"],
)
@answers
def build(
    _: Context,
    image: str = "",
    from_packages: bool = False,
    push: str = "",
    platform: list[str] | None = None,
) -> None:
    """Run: Build the images."""
    from images import build as building

    building.build([image] if image else [], from_packages=from_packages, push=push, platforms=platform or [])


@task(
    help={
        **STACK,
        **WAIT,
        **YES,
        **JSON,
        **DATABASE,
        **ARTIFACTS,
        "older-than": "only what was deleted this long ago: 30m, 12h, 30d",
        "only": "some of runs,experiments,models,traces,orphans (default: all but traces)",
        "run-ids": "exactly these runs, with commas between",
        "experiment-ids": "exactly these experiments, with commas between",
        "include-undated": "also what has no deletion time",
        "force-registered": "also the files that a registered model version needs",
        "dry-run": "show the plan and change nothing",
        "vacuum": "give the space back to the system; locks tables meanwhile",
    }
)
@answers
def cleanup(
    _: Context,
    stack: str = "local",
    backend_store_uri: str = "",
    artifacts_destination: str = "",
    older_than: str = "",
    only: str = "",
    run_ids: str = "",
    experiment_ids: str = "",
    include_undated: bool = False,
    force_registered: bool = False,
    dry_run: bool = False,
    vacuum: bool = False,
    wait: float = 0.0,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Data: Delete for good what users deleted."""
    flags = {
        name: value for name, value in locals().items() if name not in {"_", "stack", "backend_store_uri"}
    }
    from stacks.verbs import data

    data.run("cleanup", flags, stack=stack, backend_store_uri=backend_store_uri)


@task(
    help={
        **STACK,
        **DATABASE,
        **ARTIFACTS,
        **JSON,
        "top": "the N largest experiments",
        "html": "write a page with a chart",
    }
)
@answers
def usage(
    _: Context,
    stack: str = "local",
    backend_store_uri: str = "",
    artifacts_destination: str = "",
    top: int = 20,
    html: str = "",
    json: bool = False,
) -> None:
    """Data: Show who uses the space, by experiment."""
    from stacks.verbs import data

    flags = {"artifacts_destination": artifacts_destination, "top": top, "json": json}
    data.usage(flags, html=html, stack=stack, backend_store_uri=backend_store_uri)


@task(
    help={
        **STACK,
        **DATABASE,
        **TO,
        **WAIT,
        **YES,
        **JSON,
        "check": "only report; exit 0 when current, else 1",
    }
)
@answers
def migrate(
    _: Context,
    stack: str = "local",
    backend_store_uri: str = "",
    to: str = "backups",
    check: bool = False,
    wait: float = 0.0,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Data: Migrate the schema, with a backup first."""
    from stacks.verbs import data

    flags = {"check": check, "to": to, "wait": wait, "yes": yes, "json": json}
    data.migrate(flags, stack=stack, backend_store_uri=backend_store_uri)


@task(
    help={
        **STACK,
        **DATABASE,
        **ARTIFACTS,
        **TO,
        **WAIT,
        **JSON,
        "keep": "how many sets of this database to keep",
    }
)
@answers
def backup(
    _: Context,
    stack: str = "local",
    backend_store_uri: str = "",
    artifacts_destination: str = "",
    to: str = "backups",
    keep: int = 7,
    wait: float = 0.0,
    json: bool = False,
) -> None:
    """Data: Back up database, artifacts and keys, as one set."""
    from stacks.verbs import data

    flags = {
        "artifacts_destination": artifacts_destination,
        "to": to,
        "keep": keep,
        "wait": wait,
        "json": json,
    }
    data.backup(flags, stack=stack, backend_store_uri=backend_store_uri)


@task(
    help={
        **STACK,
        **DATABASE,
        **ARTIFACTS,
        **WAIT,
        **YES,
        **JSON,
        "backup": "folder of the set, or its s3:// address; .../latest is the newest one there",
    }
)
@answers
def restore(
    _: Context,
    backup: str,
    stack: str = "local",
    backend_store_uri: str = "",
    artifacts_destination: str = "",
    wait: float = 0.0,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Data: Put a verified backup back."""
    from stacks.verbs import data

    flags = {
        "backup": backup,
        "artifacts_destination": artifacts_destination,
        "wait": wait,
        "yes": yes,
        "json": json,
    }
    data.restore(flags, stack=stack, backend_store_uri=backend_store_uri)


@task(
    help={
        **STACK,
        **YES,
        **JSON,
        "to": "the version to run, newer or older, such as 3.17.2",
        "backups": "folder of the backups",
        "timeout": "seconds to wait until the stack is ready with it",
    }
)
@answers
def upgrade(
    _: Context,
    to: str,
    stack: str = "local",
    backups: str = "backups",
    yes: bool = False,
    timeout: float = 180.0,
    json: bool = False,
) -> None:
    """Data: Run another MLflow version, or put back all of it."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import report
    from stacks.verbs import upgrade as upgrading

    answer = upgrading.upgrade(open_recorded(stack), to, folder=backups, yes=yes, timeout=timeout)
    report.upgraded(answer, as_json=json)


@task(help={**TO, **JSON, "verify": "read every byte of every set"})
@answers
def backups(_: Context, to: str = "backups", verify: bool = False, json: bool = False) -> None:
    """Data: List the backups."""
    from stacks.verbs import data

    data.here(["-m", "backups", "backups", f"--to={to}", *["--verify"] * verify, *["--json"] * json])


@task(help=DOCKER)
@answers
def test(_: Context, require_docker: bool = False) -> None:
    """Develop: Run every test this machine can run."""
    from develop import testing

    testing.everything(require_docker=require_docker)


@task(name="test-unit")
@answers
def test_unit(_: Context) -> None:
    """Develop: Run the tests that need no server."""
    from develop import testing

    testing.unit()


@task(name="test-integration", help=DOCKER)
@answers
def test_integration(_: Context, require_docker: bool = False) -> None:
    """Develop: Run the tests against real servers."""
    from develop import testing

    testing.integration(require_docker=require_docker)


@task(help={"only": "one benchmark by name"})
@answers
def bench(_: Context, only: str = "") -> None:
    """Develop: Run the benchmarks."""
    from benchmarks import run

    run.run(only or None)


@task
@answers
def lint(_: Context) -> None:
    """Develop: Check style, types and templates."""
    from develop import lint

    lint.run()


@task(
    help={
        "upgrade": "take newer versions where they are allowed",
        "check": "only hold them against their sources",
    }
)
@answers
def lock(_: Context, upgrade: bool = False, check: bool = False) -> None:
    """Develop: Renew the locks of what is installed."""
    from develop import lock as locking

    locking.check() if check else locking.renew(upgrade=upgrade)


namespace = Collection(
    stacks,
    up,
    down,
    status,
    logs,
    render,
    doctor,
    build,
    cleanup,
    usage,
    migrate,
    backup,
    restore,
    backups,
    upgrade,
    secrets_rotate,
    test,
    test_unit,
    test_integration,
    bench,
    lint,
    lock,
)
