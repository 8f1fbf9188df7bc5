"""What a program asks of the kernel, in order: strace, for tests of what is on disk when something is answered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

CHANGING = (
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "write",
    "pwrite64",
    "sendfile",
    "copy_file_range",
)
NAMING = ("link", "linkat", "mkdir", "mkdirat", "rename", "renameat", "renameat2")
SYNCING = ("fsync", "fdatasync", "syncfs", "sync")
CALLS = ",".join(dict.fromkeys((*CHANGING, *NAMING, *SYNCING, "openat", "sendto")))
_LINE = re.compile(r"(?P<pid>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<name>\w+)\()(?P<rest>.*)")


@dataclass
class Call:
    """One call of the kernel: its name, its arguments and result, and the lines on which it began and ended."""

    name: str
    text: str
    began: int
    ended: int


def traced(log: Path, *command: str) -> list[str]:
    """Make the command that runs another and writes down its calls, paths of descriptors with them."""
    flags = ["--seccomp-bpf", "-f", "-qq", "-y", "-s", "32", "-e", "signal=none", "-e", f"trace={CALLS}"]
    return ["strace", *flags, "-o", str(log), *command]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a traced program; strace ends with it."""
    for child in psutil.Process(process.pid).children():
        child.terminate()
    process.wait(60)


def calls(log: Path) -> list[Call]:
    """Read what was written down, in the order in which the calls began."""
    made: list[Call] = []
    unfinished: dict[tuple[str, str], Call] = {}
    for number, line in enumerate(log.read_text(errors="replace").splitlines()):
        parts = _LINE.match(line)
        if not parts:
            continue
        if resumed := parts["resumed"]:
            call = unfinished.pop((parts["pid"], resumed))
            call.text += parts["rest"]
            call.ended = number
            continue
        call = Call(parts["name"], parts["rest"], number, number)
        made.append(call)
        if "<unfinished" in call.text:
            unfinished[parts["pid"], call.name] = call
    return made


def on_disk_when_answered(made: list[Call], path: str, answer: str = '"HTTP/1.1 200') -> bool:
    """Whether the last change to what lies at a path was on disk before the last answer was sent."""
    changed = max(call.ended for call in made if call.name in CHANGING and path in call.text)
    sent = max(call.began for call in made if call.name == "sendto" and answer in call.text)
    synced = [call for call in made if call.name in SYNCING and call.text.endswith("= 0")]
    assert changed < sent
    return any(changed < call.began and call.ended < sent for call in synced)


def on_disk_before(made: list[Call], path: str, then: Call) -> bool:
    """Whether the last change to a file's content, or to the names in a folder, was on disk before another call."""
    changed = [
        call.ended
        for call in made
        if call.ended < then.began
        and ((call.name in CHANGING and f"<{path}>" in call.text) or _names(call, path))
    ]
    assert changed, f"nothing was seen to change {path}"
    return any(
        call.name in SYNCING
        and (call.name == "sync" or f"<{path}>" in call.text)
        and max(changed) < call.began
        and call.ended < then.began
        for call in made
    )


def _names(call: Call, folder: str) -> bool:
    """Whether a call gave something in a folder its name."""
    making = call.name in NAMING or (call.name == "openat" and "O_CREAT" in call.text)
    return making and any(
        str(PurePath(name).parent) == folder for name in re.findall(r'"([^"]+)"', call.text)
    )
