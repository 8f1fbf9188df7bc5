"""What a lock holds; `invoke lock --check` in .ci/run holds it against its source and against every platform."""

import pytest

from develop import lock as locking

WHOLE = """\
one==1.0 \\
    --hash=sha256:aa
two==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
three==3.0 \\
    --hash=sha256:dd
"""


def test_a_lock_that_begins_with_another_holds_only_what_it_adds() -> None:
    base = "one==1.0 \\\n    --hash=sha256:aa\ntwo==2.0 \\\n    --hash=sha256:bb\n"

    rest = locking.added(WHOLE, base)

    assert list(locking.entries(rest)) == ["two==2.0 ; sys_platform == 'win32'", "three==3.0"]
    assert rest == WHOLE.partition("sha256:aa\n")[2]


@pytest.mark.parametrize("lock", locking.locks(), ids=lambda lock: lock.path)
def test_a_lock_hashes_every_package_and_names_no_index(lock: locking.Lock) -> None:
    text = (locking.ROOT / lock.path).read_text()

    assert text.startswith(f"-r {lock.base}\n" if lock.base else "")
    assert "://" not in text
    assert "index" not in text.replace("importlib", "")
    assert locking.entries(text)
    assert all("--hash=sha256:" in entry for entry in locking.entries(text).values())


def test_the_test_lock_repeats_nothing_of_the_other() -> None:
    pinned, tests = (
        locking.entries((locking.ROOT / name).read_text())
        for name in ("requirements.txt", "requirements-test.txt")
    )

    assert not set(pinned) & set(tests)


def test_every_image_installs_what_the_tests_ran() -> None:
    pinned = {
        pin.partition(" ;")[0] for pin in locking.entries((locking.ROOT / "requirements.txt").read_text())
    }
    known = {pin.partition("==")[0] for pin in pinned}
    for lock in locking.locks()[2:]:
        for pin in locking.entries((locking.ROOT / lock.path).read_text()):
            package = pin.partition("==")[0]
            assert package not in known or pin.partition(" ;")[0] in pinned


def test_what_an_image_leaves_out_is_left_out_of_its_lock() -> None:
    flags = {lock.path: lock.flags for lock in locking.locks()}

    assert "images/mlflow/excludes.txt" in flags["images/mlflow/requirements.txt"]
    assert "--excludes" not in flags["images/object-store/requirements.txt"]
