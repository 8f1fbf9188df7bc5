"""What every artifact store can do."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import RawIOBase
    from pathlib import Path

T = TypeVar("T")
OWN = ".mlflow-stacks/"  # folder of what this project keeps in a destination itself: no artifacts


class StoreError(Exception):
    """The store answered with an error, or not at all. The message names the store and the reason."""


class UnreadableError(StoreError):
    """One object cannot be read, whatever the state of its store: no regular file, or closed to this user.

    Attributes:
        reason: in a few words.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"cannot read '{key}': {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its key below the destination, its size in bytes, and when it was last written.

    `modified` is in seconds since the epoch, or None where the store does not tell. `kind` is ``file`` for what has
    content, else what it is: ``symbolic link``, ``FIFO``, ``socket``, ``device``. A name on a disk that is not UTF-8
    has its other bytes as lone surrogates (PEP 383), as everywhere in Python.
    """

    key: str
    size: int
    modified: float | None
    kind: str = "file"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `Store.fetch` has copied."""

    size: int
    sha256: str


def chunks(file: BinaryIO | RawIOBase, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield a file's content in pieces of at most `size` bytes."""
    while piece := file.read(size):
        yield piece


def copy_hashed(pieces: Iterable[bytes], target: BinaryIO) -> Fetched:
    """Write pieces to a file and hash them on the way."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        target.write(piece)
        size += len(piece)
    return Fetched(size, digest.hexdigest())


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items, the last one shorter (``itertools.batched`` needs Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def folder(prefix: str) -> str:
    """Return `prefix` as the name of a folder: empty, or ending in exactly one ``/``.

    Raises:
        StoreError: `prefix` is absolute or has an empty, ``.`` or ``..`` part: it could leave the store.
    """
    prefix = prefix.removesuffix("/")
    if prefix and not is_safe_key(prefix):
        raise StoreError(f"'{prefix}' is no path below the artifact destination")
    return f"{prefix}/" if prefix else ""


def is_safe_key(key: str) -> bool:
    r"""Whether `key` names something strictly below the destination: no empty, ``.`` or ``..`` part."""
    return not any(part in {"", ".", ".."} for part in key.split("/")) and not set(key) & {"\\", "\0"}


def is_path(key: str) -> bool:
    r"""Whether a path of a disk can be named so, below a folder; a ``\\`` is a letter like others there."""
    return "\0" not in key and not any(part in {"", ".", ".."} for part in key.split("/"))


def without_password(uri: str) -> str:
    """Return an artifact URI as it may be shown: the user's password in it is gone."""
    return re.sub(r"(?<=://)([^/?#@:]*):[^/?#]*@", r"\1:***@", uri)


class Store(ABC):
    """Objects below one artifact destination."""

    #: The destination this store was opened with, without credentials.
    uri: str
    #: The most keys that one request to the store deletes; a good size for the batches given to `delete`.
    batch_size: int = 1000
    #: Whether `list` yields keys in the order of their UTF-8 bytes and can start in the middle.
    sorted: bool = False

    @abstractmethod
    def list(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        """Yield every object below the folder `prefix`, page by page, in no promised order.

        A folder that does not exist is empty.

        Args:
            prefix: the folder.
            after: on a `sorted` store, yield only keys that come after this one.

        Raises:
            StoreError: the store refused or could not be reached, or `prefix` leads out of it.
        """

    @abstractmethod
    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names (no slashes) of the folders directly below the folder `prefix`.

        Raises:
            StoreError: as in `list`.
        """

    def missing(self, folders: Iterable[str]) -> set[str]:
        """Return those of many folders that are not there, where that can be told without listing each."""
        del folders
        return set()

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> dict[str, str]:
        """Delete objects; one that is gone already counts as deleted.

        Returns:
            The keys that are still there, each with the reason. Empty means that all are gone.
        """

    @abstractmethod
    def fetch(self, key: str, target: Path) -> Fetched | None:
        """Copy an object into the file `target`, whose folder exists.

        Returns:
            The bytes copied and their SHA-256; None when the object is gone.

        Raises:
            UnreadableError: the object has no content, or this user may not read it.
            StoreError: the store refused or could not be reached.
            OSError: `target` cannot be written.
        """

    def holds(self, key: str) -> bool:
        """Whether an object can have this name here."""
        return is_safe_key(key)

    @abstractmethod
    def put(self, source: Path, key: str, modified: float | None) -> None:
        """Write the file `source` as an object: whole or not at all, in place of one that is there.

        Args:
            source: the file.
            key: the object's key.
            modified: seconds since the epoch to give the object, where the store lets one choose.

        Raises:
            StoreError: the store refused or could not be reached, or `key` leads out of it.
        """

    def prune(self, prefix: str) -> None:  # noqa: B027 (most stores have no folders to remove)
        """Remove the empty folders below `prefix`, and itself if it is empty, where folders exist."""
