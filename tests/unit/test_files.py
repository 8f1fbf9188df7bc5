"""Files that are there whole or not at all, and locks that end with their holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from console import UserError
from files import disk_errors, file_lock, require_room, write_atomically, write_if_changed

ROOT = Path(__file__).parents[2]


def refusal(who: str) -> UserError:
    return UserError(f"the lock is {who}")


def test_a_file_is_replaced_whole_with_the_permissions_it_is_to_have(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for content, mode in ((b"one", 0o444), (b"two", 0o600)):
        write_atomically(path, content, mode)

        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record"
    path.write_text("before")

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(UserError, match="no space left on /"):
        write_atomically(path, b"after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_leftover_that_everybody_may_read_never_holds_a_secret(tmp_path: Path) -> None:
    (tmp_path / ".secret.new").touch(0o666)
    reader = (tmp_path / ".secret.new").open()

    write_atomically(tmp_path / "secret", b"s3cret", 0o400)

    assert reader.read() == ""
    reader.close()


def test_a_file_is_left_alone_when_it_is_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_if_changed(path, b"same", 0o600)
    before = path.stat().st_ino
    assert not write_if_changed(path, b"same", 0o600)
    assert path.stat().st_ino == before
    assert write_if_changed(path, b"same", 0o400)
    assert write_if_changed(path, b"other", 0o400)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_that_cannot_be_written_is_a_message(tmp_path: Path, number: int) -> None:
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}"), disk_errors(tmp_path):
        raise OSError(number, "no")


def test_what_a_disk_cannot_hold_is_not_begun(tmp_path: Path) -> None:
    require_room(tmp_path, 1, "a byte")
    with pytest.raises(UserError, match=r"a moon needs 1\.0 EB, free are"):
        require_room(tmp_path, 10**18, "a moon")


def test_a_lock_says_who_holds_it_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = f"""
from pathlib import Path
from console import UserError
from files import file_lock
with file_lock(Path({str(path)!r}), "backup", UserError):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    wanted = rf"held by backup \(process {holder.pid} on .+\) since 20"
    with pytest.raises(UserError, match=wanted), file_lock(path, "cleanup", refusal):
        pass
    holder.kill()
    holder.communicate()
    with file_lock(path, "cleanup", refusal) as still_held:
        assert still_held()
        path.unlink()
        assert not still_held()


def test_a_lock_holds_on_a_full_disk_though_nobody_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_room)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    held, again = (file_lock(tmp_path / "lock", purpose, refusal) for purpose in ("down", "up"))
    with held, pytest.raises(UserError, match="another process"), again:
        pass


def test_a_lock_where_none_can_be_made_is_a_message(tmp_path: Path) -> None:
    lock = file_lock(tmp_path / "gone" / "lock", "up", refusal)
    with pytest.raises(UserError, match="cannot open the lock file"), lock:
        pass
