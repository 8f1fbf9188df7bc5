"""The Invoke namespace: wiring only. ``invoke --list`` shows it, ``invoke --help TASK`` explains one.

What a task is called, says of itself and takes stands in verbs.py. Each function imports what it needs when it runs, so
that the list of tasks is there at once.
"""

from __future__ import annotations

from pathlib import Path

import verbs
from commandline import VerbTask, task
from commandline import namespace as made_of


@task(verbs.Stacks)
def stacks(request: verbs.Stacks) -> None:
    """The catalogue."""
    from stacks.verbs import report

    report.catalogue(as_json=request.json)


@task(verbs.Up)
def up(request: verbs.Up) -> None:
    """Start."""
    from stacks.state.opening import open_deployment
    from stacks.verbs import lifecycle, report

    deployment = open_deployment(request.stack, list(request.set), reset=request.reset)
    answer = lifecycle.up(deployment, engine=request.engine, timeout=request.timeout)
    report.up(answer, as_json=request.json)


@task(verbs.Down)
def down(request: verbs.Down) -> None:
    """Stop."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import lifecycle

    lifecycle.down(open_recorded(request.stack), volumes=request.volumes, yes=request.yes)


@task(verbs.Status)
def status(request: verbs.Status) -> None:
    """Look."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import lifecycle, report

    answer = lifecycle.status(open_recorded(request.stack))
    report.status(answer, as_json=request.json)
    if answer["missing"]:
        raise SystemExit(1)


@task(verbs.Logs)
def logs(request: verbs.Logs) -> None:
    """Read."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import lifecycle

    deployment = open_recorded(request.stack)
    lifecycle.logs(deployment, service=request.service or None, follow=request.follow, tail=request.tail)


@task(verbs.Render)
def render(request: verbs.Render) -> None:
    """Write, and start nothing."""
    from stacks.state.opening import open_deployment
    from stacks.verbs import lifecycle, report

    output = Path(request.output) if request.output else None
    deployment = open_deployment(request.stack, list(request.set))
    files = lifecycle.render(deployment, engine=request.engine, output=output)
    report.rendered(files, request.output)


@task(verbs.Doctor)
def doctor(request: verbs.Doctor) -> None:
    """Look at the machine."""
    from stacks.verbs import doctor, report

    report.doctor(doctor.examine(), as_json=request.json)


@task(verbs.About)
def about(request: verbs.About) -> None:
    """Versions."""
    from stacks.verbs import about as versions
    from stacks.verbs import report

    report.about(versions.about(), as_json=request.json)


@task(verbs.Prune)
def prune(request: verbs.Prune) -> None:
    """What nothing uses."""
    from stacks.verbs import prune as pruning
    from stacks.verbs import report

    report.pruned(pruning.prune(request.stack, yes=request.yes), as_json=request.json)


@task(verbs.Build)
def build(request: verbs.Build) -> None:
    """Build."""
    from images import build as building

    building.build(
        [request.image] if request.image else [],
        from_packages=request.from_packages,
        push=request.push,
        platforms=list(request.platform),
    )


@task(verbs.Cleanup)
def cleanup(request: verbs.Cleanup) -> None:
    """Rows and artifacts."""
    from stacks.verbs import data

    data.cleanup(request)


@task(verbs.Usage)
def usage(request: verbs.Usage) -> None:
    """Rows and bytes."""
    from stacks.verbs import data

    data.usage(request)


@task(verbs.Migrate)
def migrate(request: verbs.Migrate) -> None:
    """The schema to the head."""
    from stacks.verbs import data

    data.migrate(request)


@task(verbs.Backup)
def backup(request: verbs.Backup) -> None:
    """One set more."""
    from stacks.verbs import data

    data.backup(request)


@task(verbs.Restore)
def restore(request: verbs.Restore) -> None:
    """All of it as it was."""
    from stacks.verbs import data

    data.restore(request)


@task(verbs.Backups)
def backups(request: verbs.Backups) -> None:
    """The sets of a place."""
    from stacks.verbs import data

    data.here(request)


@task(verbs.Upgrade)
def upgrade(request: verbs.Upgrade) -> None:
    """Newer or older."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import report
    from stacks.verbs import upgrade as upgrading

    answer = upgrading.upgrade(
        open_recorded(request.stack),
        request.to,
        folder=request.backups,
        yes=request.yes,
        timeout=request.timeout,
    )
    report.upgraded(answer, as_json=request.json)


@task(verbs.SecretsRotate)
def secrets_rotate(request: verbs.SecretsRotate) -> None:
    """New secrets."""
    from stacks.state.opening import open_recorded
    from stacks.verbs import report, rotation

    answer = rotation.rotate(open_recorded(request.stack), yes=request.yes, timeout=request.timeout)
    report.rotated(answer, as_json=request.json)


@task(verbs.Test)
def test(request: verbs.Test) -> None:
    """All tests."""
    from develop import testing

    testing.everything(require_docker=request.require_docker)


@task(verbs.TestUnit)
def test_unit(_: verbs.TestUnit) -> None:
    """Tests without a server."""
    from develop import testing

    testing.unit()


@task(verbs.TestIntegration)
def test_integration(request: verbs.TestIntegration) -> None:
    """Tests with servers."""
    from develop import testing

    testing.integration(require_docker=request.require_docker)


@task(verbs.Bench)
def bench(request: verbs.Bench) -> None:
    """Benchmarks."""
    from benchmarks import run

    run.run(request.only or None)


@task(verbs.Lint)
def lint(_: verbs.Lint) -> None:
    """Checks."""
    from develop import lint

    lint.run()


@task(verbs.Lock)
def lock(request: verbs.Lock) -> None:
    """What is installed."""
    from develop import lock as locking

    locking.check() if request.check else locking.renew(upgrade=request.upgrade)


namespace = made_of([each for each in list(globals().values()) if isinstance(each, VerbTask)], verbs.VERBS)
