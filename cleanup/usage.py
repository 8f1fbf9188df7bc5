"""``python -m cleanup.usage``: who uses the space, by experiment."""

from __future__ import annotations

import html
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arguments
import verbs
from console import UserError, cell, emit_json, note, screen, size, user_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Engine

    from artifacts import Store, StoredObject
    from cleanup.schema import Schema

EXPERIMENT = re.compile(r"(?:workspaces/[^/]+/)?(\d+)/")


@dataclass
class Usage:
    """What one experiment uses: counts, and bytes in the artifact store.

    `deleted_runs` and `deleted_bytes` are the part that users deleted and a cleanup gives back. The `id` is
    None for artifacts that belong to no experiment.
    """

    id: str | None
    name: str
    workspace: str | None = None
    deleted: bool = False
    runs: int = 0
    deleted_runs: int = 0
    metric_rows: int = 0
    traces: int = 0
    objects: int = 0
    bytes: int = 0
    deleted_bytes: int = 0

    @property
    def deleted_share(self) -> float:
        """The part of the bytes that a cleanup would give back, from 0 to 1; of the runs if there are none."""
        if self.bytes:
            return self.deleted_bytes / self.bytes
        return self.deleted_runs / self.runs if self.runs else float(self.deleted)

    def as_json(self) -> dict[str, Any]:
        """Return the shape of one experiment in ``--json``."""
        return asdict(self) | {"deleted_share": round(self.deleted_share, 4)}


def measure(engine: Engine, destination: str) -> list[Usage]:
    """Measure every experiment; reads every row of `metrics` once and lists the whole destination.

    Args:
        engine: the backend store, from `database.connection.connect`.
        destination: the artifact destination.

    Returns:
        One `Usage` an experiment, the largest first.

    Raises:
        UserError: no MLflow database, or the store cannot be listed.
    """
    from artifacts import StoreError, open_store
    from cleanup.schema import read_connection

    try:
        store = open_store(destination)
        with engine.connect() as connection:
            schema = read_connection(connection)
            usages = _rows(connection, schema)
            connection.rollback()
            _objects(connection, schema, store, usages)
    except StoreError as error:
        raise UserError(str(error), "give --artifacts-destination as the tracking server has it") from None
    return sorted(usages.values(), key=lambda item: (-item.bytes, -item.metric_rows, -item.runs, item.name))


def _rows(connection: Connection, schema: Schema) -> dict[str | None, Usage]:
    from sqlalchemy import func, select

    experiments, runs, metrics = (schema.tables[name] for name in ("experiments", "runs", "metrics"))
    usages: dict[str | None, Usage] = {}
    for row in connection.execute(select(experiments)).mappings():
        key = str(row["experiment_id"])
        usages[key] = Usage(key, row["name"], row.get("workspace"), row["lifecycle_stage"] == "deleted")
    grouped = (runs.c.experiment_id, runs.c.lifecycle_stage)
    for experiment, stage, count in connection.execute(select(*grouped, func.count()).group_by(*grouped)):
        usages[str(experiment)].runs += count
        usages[str(experiment)].deleted_runs += count if stage == "deleted" else 0
    # first by run, which the index on metrics gives, and then by experiment
    by_run = select(metrics.c.run_uuid, func.count().label("rows")).group_by(metrics.c.run_uuid).subquery()
    query = (
        select(runs.c.experiment_id, func.sum(by_run.c.rows))
        .join_from(by_run, runs, by_run.c.run_uuid == runs.c.run_uuid)
        .group_by(runs.c.experiment_id)
    )
    for experiment, count in connection.execute(query):
        usages[str(experiment)].metric_rows = int(count)
    if "trace_info" in schema.tables:
        traces = schema.tables["trace_info"]
        query = select(traces.c.experiment_id, func.count()).group_by(traces.c.experiment_id)
        for experiment, count in connection.execute(query):
            usages[str(experiment)].traces = int(count)
    return usages


def _objects(connection: Connection, schema: Schema, store: Store, usages: dict[str | None, Usage]) -> None:
    from artifacts.base import batches

    for group in batches(store.list(), 1000):
        deleted = _deleted(connection, schema, group)
        for item in group:
            match = EXPERIMENT.match(item.key)
            key = match[1] if match and match[1] in usages else None
            usage = usages.setdefault(key, Usage(None, "(no experiment)"))
            usage.objects += 1
            usage.bytes += item.size
            # a live run in a deleted experiment keeps the experiment
            gone = usage.deleted and usage.runs == usage.deleted_runs
            if gone or deleted & set(item.key.split("/")):
                usage.deleted_bytes += item.size


def _deleted(connection: Connection, schema: Schema, group: Iterable[StoredObject]) -> set[str]:
    """Return the ids of deleted runs and logged models that own some of these objects."""
    from sqlalchemy import select

    from cleanup.locations import ENTITY

    ids = list({entity for item in group for entity in ENTITY.findall(item.key)})
    gone: set[str] = set()
    for table, key in (("runs", "run_uuid"), ("logged_models", "model_id")):
        if table in schema.tables and ids:
            owner = schema.tables[table]
            query = select(owner.c[key]).where(owner.c[key].in_(ids), owner.c.lifecycle_stage == "deleted")
            gone.update(connection.execute(query).scalars())
    connection.rollback()
    return gone


def as_json(usages: list[Usage], top: int | None = None) -> dict[str, Any]:
    """Return the shape of ``--json``: the totals of all, and the `top` experiments."""
    names = ("runs", "deleted_runs", "metric_rows", "traces", "objects", "bytes", "deleted_bytes")
    return {
        "total": {name: sum(getattr(item, name) for item in usages) for name in names},
        "experiments": [item.as_json() for item in usages[:top]],
    }


def show(usages: list[Usage], top: int) -> None:
    """Print a table with bars."""
    from rich.bar import Bar
    from rich.table import Table

    table = Table()
    table.add_column("experiment")
    for name in ("runs", "metric rows", "traces", "artifacts", "bytes", "deleted"):
        table.add_column(name, justify="right")
    table.add_column("share", min_width=20)
    most = max((item.bytes for item in usages), default=0)
    largest = most or max((item.metric_rows for item in usages), default=0) or 1
    for item in usages[:top]:
        length = item.bytes if most else item.metric_rows
        table.add_row(
            cell(f"{item.name} ({item.id})" if item.id else item.name),
            f"{item.runs:,}",
            f"{item.metric_rows:,}",
            f"{item.traces:,}",
            f"{item.objects:,}",
            size(item.bytes),
            f"{item.deleted_share:.0%}",
            Bar(largest, 0, length, color="cyan"),
        )
    screen().print(table)
    if len(usages) > top:
        note(f"and {len(usages) - top} smaller ones; --top={len(usages)} shows them")


def as_html(usages: list[Usage], top: int) -> str:
    """Return one page with a chart that needs no network and no script."""
    largest = max((item.bytes for item in usages), default=0) or 1
    rows = []
    for item in usages[:top]:
        live, gone = (100 * part / largest for part in (item.bytes - item.deleted_bytes, item.deleted_bytes))
        rows.append(
            f"<tr><th scope=row>{html.escape(item.name)}</th><td>{item.runs:,}</td>"
            f"<td>{item.metric_rows:,}</td><td>{item.traces:,}</td><td>{item.objects:,}</td>"
            f"<td>{size(item.bytes)}</td><td>{item.deleted_share:.0%}</td>"
            f'<td class=chart><i style="width:{live:.2f}%"></i><b style="width:{gone:.2f}%"></b></td></tr>'
        )
    return PAGE.replace("{rows}", "\n".join(rows))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MLflow: who uses the space</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, th[scope=row] { text-align: left }
td.chart { width: 40%; white-space: nowrap; font-size: 0 }
i, b { display: inline-block; height: 1rem; background: #0e7490 }
b, .gone { background: #f59e0b }
</style></head><body>
<h1>Who uses the space</h1>
<p>Bytes of artifacts by experiment; <span class="gone">&nbsp;this colour&nbsp;</span> was deleted by users
and comes back with a cleanup.</p>
<table><thead><tr><th>experiment</th><th>runs</th><th>metric rows</th><th>traces</th><th>artifacts</th>
<th>bytes</th><th>deleted</th><th></th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    from cleanup.__main__ import require_target

    with user_errors():
        request = arguments.read(sys.argv[1:] if argv is None else argv, verbs.Usage)
    with user_errors(debug=request.debug):
        uri, destination = require_target(request)

        from database.connection import connect

        usages = measure(connect(uri), destination)
        if request.html == "-":
            sys.stdout.write(as_html(usages, request.top))
        elif request.html:
            try:
                Path(request.html).write_text(as_html(usages, request.top), encoding="utf-8")
            except OSError as error:
                raise UserError(f"cannot write {request.html}: {error.strerror}") from None
            note(f"written: {request.html}")
        if request.json:
            emit_json(as_json(usages, request.top))
        elif not request.html:
            show(usages, request.top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
