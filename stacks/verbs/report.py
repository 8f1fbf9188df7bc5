"""What the verbs of a stack print: tables for people, JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from console import cell, emit_json, note, result, screen, size
from disks import explain
from stacks import catalogue as stack_files

if TYPE_CHECKING:
    from stacks.verbs.doctor import Finding


def catalogue(*, as_json: bool) -> None:
    """Print every stack of the catalogue."""
    from stacks.engines.choice import ENGINES

    stacks = [stack_files.load(name) for name in stack_files.names()]
    engines = sorted(ENGINES)
    if as_json:
        rows = [{**vars(stack), "services": list(stack.services), "engines": engines} for stack in stacks]
        emit_json({"stacks": rows})
        return
    _print_table(
        ["stack", "what it is", "services", "engines"],
        [[stack.name, stack.description, " ".join(stack.services), " ".join(engines)] for stack in stacks],
    )


def up(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what is up, and where."""
    if as_json:
        emit_json(answer)
        return
    note(f"stack '{answer['stack']}' is up on the {answer['engine']} engine after {answer['seconds']} s")
    _print_urls(answer)


def rotated(answer: dict[str, Any] | None, *, as_json: bool) -> None:
    """Print which secrets are new; nothing after a no."""
    if answer and as_json:
        emit_json(answer)
    elif answer:
        note(f"new in stack '{answer['stack']}' after {answer['seconds']} s: {', '.join(answer['rotated'])}")


def upgraded(answer: dict[str, Any] | None, *, as_json: bool) -> None:
    """Print which version runs now; nothing after a no."""
    if answer and as_json:
        emit_json(answer)
    elif answer and answer["changed"]:
        note(
            f"stack '{answer['stack']}' runs MLflow {answer['to']} after {answer['seconds']} s, "
            f"{answer['away']} s of them away"
        )
        if answer["backup"]:
            note(f"  as it was before: {answer['backup']}")


def status(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print how each service is, and what the data takes."""
    if as_json:
        emit_json(answer)
        return
    _print_table(
        ["service", "state", "health", "version", "uptime", "memory", "URL"],
        [
            [
                service["name"],
                service["state"],
                service.get("health", "-"),
                service.get("version", "-"),
                _duration(service.get("uptime")),
                _size(service.get("memory")),
                service.get("url", "-"),
            ]
            for service in answer["services"]
        ],
    )
    if answer["down"]:
        result(f"stack '{answer['stack']}' is down: invoke down took it down")
    elif away := answer["missing"]:
        hung = [
            service["name"]
            for service in answer["services"]
            if service["state"] == "running" and not service.get("full")
        ]
        up = f"invoke up --stack={answer['stack']}"
        mend = f"start it: {up}"
        if set(away) <= set(hung):  # `up` would only wait for what runs
            mend = f"start it anew: invoke down --stack={answer['stack']}, then {up}"
        note(f"not as it should be: {', '.join(away)}; {mend}")
    for service in answer["services"]:
        if service.get("full"):
            result(f"{service['name']:<10} no room left for: {', '.join(service['full'])}")
        elif service.get("detail"):
            result(f"{service['name']:<10} {service['detail']}")
    for line in explain()[1:] if any(disk["full"] for disk in answer["disks"]) else ():
        result(line)
    if "schema" in answer:
        result(f"schema     {answer['schema']['state']}, revision {answer['schema']['revision']}")
    for name in ("database", "artifacts"):
        if name in answer:
            result(f"{name:<10} {_size(answer[name])}")


def rendered(files: dict[str, str], output: str) -> None:
    """Print the rendered files, by the paths they have in a stack, or the folder `output` that they went to."""
    for path, text in files.items():
        if output:
            note(f"wrote {output}/{path}")
        else:
            print(text, end="")


def doctor(findings: list[Finding], *, as_json: bool) -> None:
    """Print what this machine has and lacks."""
    if as_json:
        emit_json({"findings": [vars(finding) for finding in findings]})
        return
    _print_table(
        ["", "what", "for", "found", "mend it with"],
        [
            [
                "ok" if finding.ok else "--",
                finding.what,
                finding.needed_for,
                finding.found,
                finding.mend or "",
            ]
            for finding in findings
        ],
    )


def pruned(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what is gone."""
    if as_json:
        emit_json(answer)
    elif answer["removed"]:
        note(f"removed {answer['removed']}, up to {size(answer['bytes'])}")


def about(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print versions, a line each."""
    if as_json:
        emit_json(answer)
        return
    result(f"{'mlflow-stacks':<19} {answer['version']} {answer['revision'] or ''}".rstrip())
    for name in ("mlflow", "python", "platform", "docker", "compose"):
        result(f"{name:<19} {answer[name] or '-'}")
    for name, version in answer["packages"].items():
        result(f"{name:<19} {version or '-'}")
    for row in answer["stacks"]:
        services = ", ".join(f"{name} {version}" for name, version in row["services"].items())
        result(
            f"stack {row['stack']}: MLflow {row['mlflow']} on the {row['engine']} engine; {services or 'down'}"
        )


def _print_urls(answer: dict[str, Any]) -> None:
    for service in answer["services"]:
        if "url" in service:
            result(f"{service['name']:<10} {service['url']}")
    if "gateway" in answer:
        result(f"OpenAI     {answer['gateway']} (base URL for an OpenAI client)")


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    screen().print(table)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    shown = [f"{value}{unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0s"


def _size(count: int | None) -> str:
    return "-" if count is None else size(count)
