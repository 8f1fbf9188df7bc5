"""Build the images, find what is built, and push it: what `invoke build` and `invoke up` call.

A built image's tag carries the hash of its build context (`reference`), so that whoever starts a stack knows
whether the image at hand is the one this checkout describes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from console import UserError, note
from images import catalogue, engine, index, packages
from version import VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

LABEL = "org.mlflow-stacks.image"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def names() -> list[str]:
    """The images there are, in the order they are built."""
    return catalogue.names()


def reference(name: str, lock: Path | None = None) -> str:
    """The local tag of an image as this checkout describes it: ``mlflow-stacks/mlflow:3.17.2-<hash>``.

    Args:
        name: one of `names`.
        lock: see `images.catalogue.image`.

    Raises:
        UserError: there is no such image.
    """
    what = catalogue.image(name, lock)
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-context-") as folder:
        catalogue.assemble(what, Path(folder))
        return _tag(what, Path(folder))


def _tag(what: catalogue.Image, context: Path) -> str:
    return f"{catalogue.REPOSITORY}/{what.name}:{what.version}-{catalogue.content_hash(context)[:12]}"


def find(name: str, *, official: bool = True, lock: Path | None = None) -> str | None:
    """The reference an image can be started under: the official one where it is here, else the built one.

    Args:
        name: one of `names`.
        official: False looks for the built one alone.
        lock: see `images.catalogue.image`.

    Returns:
        A reference that is on this machine, or None; None too where no engine answers.

    Raises:
        UserError: there is no such image.
    """
    published = catalogue.image(name).official
    candidates = [*([published] if published and official else []), reference(name, lock)]
    return next((candidate for candidate in candidates if engine.inspect(candidate)), None)


def ensure(name: str, lock: Path | None = None) -> str:
    """The reference of an image that is on this machine when this returns: found, fetched, or built.

    Args:
        name: one of `names`.
        lock: see `images.catalogue.image`.

    Raises:
        UserError: no engine answers, or it is not here and no registry answers; the next command is in it.
    """
    here = find(name, lock=lock)
    if here:
        return here
    engine.require()
    official = catalogue.image(name).official
    if not official:
        # Bases made from packages are a sign that there is no registry to ask: the last build said so.
        base = catalogue.image(name).base
        return build([name], from_packages=engine.inspect(packages.tag(base)) is not None, lock=lock)[name]
    _fetch(official)
    return official


def fetch(name: str) -> str:
    """The reference of an image that is never built here, on this machine when this returns.

    Raises:
        UserError: it is not here and no registry answers.
    """
    wanted = catalogue.fetched(name)
    if not engine.inspect(wanted):
        engine.require()
        _fetch(wanted)
    return wanted


def build(
    which: Iterable[str] = (),
    *,
    from_packages: bool = False,
    push: str = "",
    platforms: Sequence[str] = (),
    lock: Path | None = None,
) -> dict[str, str]:
    """Build images.

    Args:
        which: some of `names`. By default those that have no official counterpart, or, from packages, all.
        from_packages: make the bases from the packages of this machine's mirror, and ask no registry.
        push: a registry, with a path if it needs one, that the images are tagged for and pushed to.
        platforms: for example ``linux/arm64``; other platforms than the machine's need Docker Buildx.
        lock: see `images.catalogue.image`; for one image.

    Returns:
        The names to the references built; with `push`, those in that registry.

    Raises:
        UserError: an unknown name, no engine, no registry for a base, a failed build or push.
    """
    chosen = [catalogue.image(name, lock) for name in which] or [
        what for what in map(catalogue.image, names()) if from_packages or not what.official
    ]
    engine.require()
    if platforms:
        _check_platforms(platforms, from_packages=from_packages, push=push)
    bases: dict[str, str] = {}
    for what in chosen:
        if what.base.name not in bases:
            bases[what.base.name] = _base(what, from_packages=from_packages)
    return {what.name: _build(what, bases[what.base.name], push.strip("/"), platforms) for what in chosen}


def _base(what: catalogue.Image, *, from_packages: bool) -> str:
    if from_packages:
        return packages.make(what.base)
    if not what.base.reference:
        raise UserError(
            f"the image '{what.name}' is only built from packages; with a registry its official one is used",
            f"build it: invoke build --image={what.name} --from-packages",
            f"or fetch: docker pull {what.official}",
        )
    if not engine.inspect(what.base.reference):
        _fetch(what.base.reference)
    return what.base.reference


def _fetch(official: str) -> None:
    reason = engine.pull(official)
    if reason:
        raise UserError(
            f"cannot fetch {official}",
            reason,
            "no container registry in reach? build without one: invoke build --from-packages",
        )


def _check_platforms(platforms: Sequence[str], *, from_packages: bool, push: str) -> None:
    if from_packages:
        raise UserError(
            "bases made from packages are for this machine's platform alone",
            "leave out one of --platform and --from-packages",
        )
    if subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode != 0:
        raise UserError(
            "building for a platform needs Docker Buildx, which this machine lacks",
            "install it: apt-get install docker-buildx",
        )
    if len(platforms) > 1 and not push:
        raise UserError(
            "an image for several platforms can only be built into a registry", "add: --push=REGISTRY"
        )


def _build(what: catalogue.Image, base: str, registry: str, platforms: Sequence[str]) -> str:
    """One image into the engine, or with several platforms into the registry; the reference it got."""
    started = time.monotonic()
    where = index.configured()
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-build-") as name:
        context = Path(name)
        catalogue.assemble(what, context)
        local = _tag(what, context)
        remote = f"{registry}/{local}" if registry else ""
        folder = context / catalogue.INDEX
        folder.mkdir()
        for filename, content in where.files().items():
            (folder / filename).write_bytes(content)
        note(f"building {local} on {base}")
        command = build_command(
            context, local, base, what.version, host_network=where.local() or _local_proxy()
        )
        if platforms:
            target = remote or local
            command = [
                *("docker", "buildx", *command[1:-1], f"--platform={','.join(platforms)}", f"--tag={target}"),
                *("--push" if remote else "--load", command[-1]),
            ]
        engine.run(command, doing=f"building the image '{what.name}'", steps=True)
    if registry and not platforms:
        engine.run(["docker", "tag", local, remote], doing=f"tagging {remote}")
        engine.run(["docker", "push", remote], doing=f"pushing {remote}")
    note(f"built {remote or local} in {time.monotonic() - started:.0f} s")
    return remote or local


def build_command(
    context: Path, tag: str, base: str, version: str, *, host_network: bool = False
) -> list[str]:
    """The ``docker build`` command of one image.

    Proxies go by name alone, so that their values, which may hold a password, are in no argument list; the
    builder leaves these predefined arguments out of an image's history (Dockerfile reference).

    Args:
        context: the laid-out context, with the Dockerfile in it.
        tag: the tag to give it.
        base: the value of BASE_IMAGE.
        version: the version for its labels.
        host_network: build on the host's network, for an index or a proxy that listens on loopback.
    """
    return [
        *(
            "docker",
            "build",
            "--force-rm",
            f"--tag={tag}",
            f"--build-arg=BASE_IMAGE={base}",
            f"--build-arg=VERSION={version}",
            f"--build-arg=PROJECT={VERSION}",
        ),
        f"--build-arg=REVISION={revision()}",
        *(f"--build-arg={name}" for name in _PROXIES if os.environ.get(name)),
        *(("--network=host",) if host_network else ()),
        str(context),
    ]


def _local_proxy() -> bool:
    return any(index.is_loopback(os.environ.get(name, "")) for name in _PROXIES)


def revision() -> str:
    """The checkout's commit, with a mark where files differ from it; empty outside a git checkout."""
    command = [
        "git",
        "-C",
        str(catalogue.ROOT),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def unused(named: Collection[str] = ()) -> list[tuple[str, str, int]]:
    """List the images of ours that no container was made from and that this checkout does not build any more.

    Args:
        named: references that are in use all the same.

    Returns:
        For each: its id, its tag (empty for a build stage's leftover), and its size in bytes, which counts
        layers that it shares with others.
    """
    wanted = {reference(name) for name in names()} | set(named)
    wanted |= {packages.tag(catalogue.image(name).base) for name in names()}
    used = engine.images_in_use() | {row["Id"] for name in wanted if (row := engine.inspect(name))}
    rows = {row["Id"]: row for label in (LABEL, packages.LABEL) for row in engine.labelled(label)}
    return [
        (identity, (row["RepoTags"] or [""])[0], int(row["Size"]))
        for identity, row in rows.items()
        if identity not in used
    ]


def remove(ids: Iterable[str]) -> None:
    """Remove images by id; one that a container or another image needs by now stays.

    Args:
        ids: what `unused` listed and the user agreed to.
    """
    used = engine.images_in_use()
    for identity in ids:
        if identity not in used:
            subprocess.run(["docker", "image", "rm", "--force", identity], capture_output=True, check=False)
