"""Remove the folders of many runs, logged models or traces from an artifact store at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from artifacts import Store, StoredObject, StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

FLUSH = 8_000  # objects that are held in memory before they are deleted
THREADS = 8
WORTH_A_RANGE = 20  # folders side by side from which on one listing is cheaper than one a folder
# Of a folder .../<id>/ only this is the entity's: a file store keeps its own files beside it.
OWNED = "artifacts/"

# What may be deleted: folders, each with the keys inside it that are not to be touched, with all below them.
Folders = Mapping[str, tuple[str, ...]]


@dataclass
class Removal:
    """What was removed: `objects`, their `bytes`, and the folders that are not empty, with the reason."""

    objects: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def objects_in(store: Store, folders: Folders) -> Iterator[tuple[str, StoredObject | str]]:
    """Yield the objects owned in each folder as ``(folder, object)``; a folder that fails as ``(folder, reason)``."""
    for name, item in _objects_in(store, folders):
        if isinstance(item, str) or _owned(item.key, name, folders[name]):
            yield name, item


def _owned(key: str, folder: str, kept: tuple[str, ...]) -> bool:
    return key.startswith(folder + OWNED) and not any(f"{key}/".startswith(f"{place}/") for place in kept)


def _objects_in(store: Store, folders: Iterable[str]) -> Iterator[tuple[str, StoredObject | str]]:
    """Yield whatever is in the folders.

    On a sorted store, folders that lie side by side are listed as one range of keys, as long as that does
    not mean reading through many more objects than it finds.
    """
    rest: list[str] = []
    for parent, group in groupby(sorted(folders), key=lambda name: name.rstrip("/").rpartition("/")[0]):
        siblings = list(group)
        if not store.sorted or len(siblings) < WORTH_A_RANGE:
            rest += siblings
            continue
        rest += yield from _range(store, parent, siblings)
    if not rest:
        return
    if not store.sorted:  # a local directory, or one whose client may not be shared between threads
        missing = store.missing(rest)
        for name in rest:
            if name not in missing:
                yield from _one(store, name)
        return
    with ThreadPoolExecutor(THREADS, thread_name_prefix="list") as pool:
        # a few pages a folder: what a folder may hold at most in memory is not ours to bound
        for start in range(0, len(rest), THREADS):
            some = rest[start : start + THREADS]
            if len(some) == 1:
                yield from _one(store, some[0])
                continue
            failures = []
            for part in pool.map(lambda name: list(_one(store, name)), some):
                yield from part
                failures += [item for _, item in part if isinstance(item, str)]
            # each failure took its retries: when none of the first works, none of the others will
            if start == 0 and len(failures) == THREADS:
                yield from ((name, failures[0]) for name in rest[THREADS:])
                return


def _one(store: Store, name: str) -> Iterator[tuple[str, StoredObject | str]]:
    try:
        for item in store.list(name):
            yield name, item
    except StoreError as error:
        yield name, str(error)


def _range(
    store: Store, parent: str, siblings: list[str]
) -> Generator[tuple[str, StoredObject | str], None, list[str]]:
    """Yield from one listing; return the folders that it did not get to."""
    wanted = set(siblings)
    depth = len(siblings[0])
    last, patience = siblings[-1], 5_000 + 20 * len(siblings)
    previous = current = ""
    try:
        for item in store.list(parent, after=siblings[0]):
            if item.key < previous:
                break  # says that it is sorted and is not
            previous = item.key
            name = item.key[:depth]
            if name > last:
                return []
            current = name
            if name in wanted:
                yield name, item
            else:
                patience -= 1
                if patience < 0:
                    break
        else:
            return []
    except StoreError:
        pass  # perhaps only the parent may not be listed
    return [name for name in siblings if name >= current]


def remove(store: Store, folders: Folders) -> Removal:
    """Delete every object that is owned in the folders.

    Returns:
        What went. A folder of which something could not be listed or deleted is in `failed`; its other
        objects may be gone.
    """
    removal = Removal()
    waiting: dict[str, tuple[str, int]] = {}

    def flush() -> None:
        for key, reason in store.delete(list(waiting)).items():
            name, size = waiting[key]
            removal.failed.setdefault(name, f"{key}: {reason}")
            removal.objects -= 1
            removal.bytes -= size
        waiting.clear()

    for name, item in objects_in(store, folders):
        if isinstance(item, str):
            removal.failed.setdefault(name, item)
            continue
        if item.key in waiting:
            continue
        waiting[item.key] = (name, item.size)
        removal.objects += 1
        removal.bytes += item.size
        if len(waiting) >= FLUSH:
            flush()
    flush()
    for name in folders.keys() - removal.failed.keys() - store.missing(folders):
        store.prune(name)
    return removal
