"""``python -m develop.versions``: write docs/mlflow-versions.md from what the code knows of MLflow's versions."""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from console import note
from files import write_atomically
from images.lock import LIMITS
from server.upstream import FEATURES
from stacks.state.environments import pinned

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "mlflow-versions.md"

# What tests/host/server/test_versions.py runs: the oldest that a stack may run, the newest, and two between.
TRIED = ("3.3.2", "3.6.0", "3.11.1", pinned())


def document() -> str:
    """The document, made from `server.upstream` and `images.lock`."""
    oldest = FEATURES["server"].since
    return "\n".join(
        [
            "# MLflow's versions",
            "",
            f"Stacks run MLflow {oldest} and later, {pinned()} unless the setting `mlflow_version` or `invoke upgrade`",
            f"says otherwise. Tests run {', '.join(TRIED[:-1])} and {TRIED[-1]}; those between were tried once each.",
            "`python -m develop.versions` writes this page from `server/upstream.py` and `images/lock.py`.",
            "",
            "## What works since when",
            "",
            _table(
                ("what", "since MLflow", "with older ones"),
                [(feature.name, feature.since, feature.before) for feature in FEATURES.values()],
            ),
            "",
            "## What is installed beside an older one",
            "",
            "Without these it does not start, or a part of it fails. An environment or an image of another version",
            "gets them by itself.",
            "",
            _table(
                ("requirement", "since MLflow", "until before"),
                [
                    (f"`{limit}`", str(max(since, Version(oldest))), str(until))
                    for limit, since, until in LIMITS
                ],
            ),
            "",
            "## Before another version is pinned",
            "",
            "`python -m server.upstream`, in an environment that has it, says which private name, variable or message",
            "that we lean on is gone; `server/upstream.py` says what each is needed for.",
            "",
        ]
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write it."""
    write_atomically(DOCUMENT, document().encode())
    note(f"wrote {DOCUMENT.relative_to(DOCUMENT.parents[1])}")


if __name__ == "__main__":
    main()
