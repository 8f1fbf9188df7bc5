"""What every image made from packages keeps to itself."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from images import apt, build, catalogue, engine, index, packages
from tests.support.containers import built, docker

pytestmark = pytest.mark.docker


def hosts() -> set[str]:
    """The mirrors and indexes this machine is configured for."""
    configuration = index.configured()
    urls = [source.uri for source in apt.read_sources()] + [configuration.url, *configuration.extra]
    return {host for url in urls if (host := urlsplit(url).hostname)}


@pytest.mark.parametrize("name", build.names())
def test_nothing_of_this_machines_mirrors_stays_in_an_image(name: str) -> None:
    image = built(name)
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    for host in hosts():
        assert host not in history
        places = ("/etc", "/var/lib", "/var/log", "/var/cache", "/opt", "/usr/local")
        search = ("grep", "-rlsI", "--exclude-dir=site-packages", host, *places)
        mentions = docker(
            "run", "--rm", "--user=0", f"--entrypoint={search[0]}", image, *search[1:], check=False
        )
        assert mentions == ""
    left = docker(
        "run", "--rm", "--entrypoint=sh", image, "-c", "ls -d /build /etc/apt/sources.list", check=False
    )
    assert left == ""


@pytest.mark.parametrize("name", build.names())
def test_an_image_runs_as_its_own_user_and_says_what_it_is(name: str) -> None:
    image = engine.inspect(built(name))
    assert image is not None
    labels = image["Config"]["Labels"]
    assert labels[build.LABEL] == name
    for label in ("title", "description", "version", "revision", "source", "licenses"):
        assert labels[f"org.opencontainers.image.{label}"]
    assert labels["org.opencontainers.image.version"] == catalogue.image(name).version
    assert image["Config"]["User"] in {"10001:10001", "999:999"}


@pytest.mark.parametrize("name", build.names())
def test_no_compiler_and_no_installer_is_left(name: str) -> None:
    programs = "gcc cc g++ c++ clang tcc as ld pip pip3 uv git curl wget"
    script = f"for name in {programs}; do command -v $name; done; true"
    assert docker("run", "--rm", "--entrypoint=sh", built(name), "-c", script) == ""


def test_a_fresh_base_is_not_made_again() -> None:
    built("mlflow")
    base = catalogue.image("mlflow").base
    if engine.inspect(packages.tag(base)) is None:
        return  # the image was built on the official base: a registry is in reach
    before = engine.inspect(packages.make(base))
    after = engine.inspect(packages.make(base))
    assert before is not None
    assert after is not None
    assert before["Id"] == after["Id"]
