"""``python -m develop.reference``: write docs/reference.md from verbs.py, the settings and .env.example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from console import note
from files import write_atomically
from flags import VARIABLES
from stacks.definition.settings import PREFIX, Settings, as_text
from verbs import VERBS

if TYPE_CHECKING:
    from flags import Flag
    from verbs import Verb

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "reference.md"
GROUPS = {
    "Run": "A stack",
    "Data": "Its data",
    "Develop": "This project",
}
HEAD = """# Reference

Every task, flag, setting and variable, made by `python -m develop.reference` from what the programs read.
`invoke --help TASK` shows the same of one task. A flag's value follows `=` or a space.

## Exit codes

| code | means |
| --- | --- |
| 0 | done |
| 1 | not done, or not healthy; the message says what mends it |
| 2 | wrong usage; nothing was done |
| 130 | interrupted |
| 141 | whoever read the output has gone, as in `invoke status \\| head -1` |

Anything else is a defect. With `--json`, standard output holds one JSON object; progress and notes go to standard
error.
"""
BESIDE = """## Beside the data

A verb that works on data runs where the database is in reach: in the stack's environment or image, or here. Anybody can
run it there, against any MLflow, without a stack: `python -m MODULE --help`. Instead of flags it takes one word of
JSON, with each flag's name in underscores; that is how the tasks call it.
"""
SETTINGS = f"""## Settings

Stronger wins: default < stack file < `.env` < environment < `--set NAME=VALUE`. In `.env` and in the environment a
setting is written `{PREFIX}<NAME>`, in capitals.
"""
OTHERS = """## Variables that are no settings

They are read from the environment alone.
"""


def written() -> str:
    """The whole document."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_task(request.verb) for request in VERBS.values() if request.verb.group == group]
    parts.append(BESIDE)
    parts.append(_table(["module", "does"], _modules()))
    parts.append(SETTINGS)
    parts.append(_table(["setting", "default", "what it does"], _settings()))
    parts.append(OTHERS)
    parts.append(
        _table(["variable", "what it says"], [[f"`{name}`", text] for name, text in VARIABLES.items()])
    )
    return "\n".join(parts)


def _task(verb: Verb) -> str:
    needed = "".join(f" {flag.spelled}" for flag in verb.of_task() if flag.required)
    text = f"### `invoke {verb.name}{needed}`\n\n{verb.help}\n"
    rows = [_flag(flag) for flag in verb.of_task()]
    return f"{text}\n{_table(['flag', 'what it does'], rows)}" if rows else text


def _flag(flag: Flag) -> list[str]:
    short = f"`-{flag.short}`, " if flag.short else ""
    return [f"{short}`{flag.spelled}`", flag.explained]


def _modules() -> list[list[str]]:
    verbs = [request.verb for request in VERBS.values() if request.verb.module]
    return [[f"`python -m {' '.join(verb.module)}`", verb.help] for verb in verbs]


def _settings() -> list[list[str]]:
    """Name, default and what `.env.example` says of each setting."""
    explained = re.findall(
        rf"((?:^# .*\n)+)^# {PREFIX}(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    text = {
        name.lower(): " ".join(re.sub(r"^# ", "", block, flags=re.MULTILINE).split())
        for block, name in explained
    }
    return [
        [f"`{name}`", f"`{default}`" if (default := as_text(name)) else "", text[name]]
        for name in Settings.model_fields
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write_atomically(FILE, written().encode())
    note(f"wrote {FILE}")
