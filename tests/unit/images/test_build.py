"""What `build` says and does when something it needs is not there."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from console import UserError
from images import build, catalogue, engine, packages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that answers and has nothing."""
    monkeypatch.setattr(engine, "require", lambda: None)
    monkeypatch.setattr(engine, "inspect", lambda _: None)


@pytest.mark.usefixtures("no_images")
@pytest.mark.parametrize("name", build.names())
def test_without_a_registry_the_error_names_the_way_without_one(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(engine, "pull", lambda _: "no such host")
    with pytest.raises(UserError) as caught:
        build.ensure(name)
    assert "no such host" in caught.value.hints
    assert "invoke build --from-packages" in caught.value.hints[-1]


def test_without_docker_the_error_names_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.find("mlflow") is None
    with pytest.raises(UserError, match="no Docker engine answers") as caught:
        build.build(["mlflow"])
    assert caught.value.hints[-1].endswith("invoke doctor")


@pytest.mark.usefixtures("no_images")
def test_without_mmdebstrap_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="mmdebstrap is missing") as caught:
        build.build(["mlflow"], from_packages=True)
    assert caught.value.hints == ("install it: apt-get install mmdebstrap",)


@pytest.mark.usefixtures("no_images")
def test_an_image_with_an_official_counterpart_is_built_from_packages_alone() -> None:
    with pytest.raises(UserError, match="only built from packages") as caught:
        build.build(["postgres"])
    assert "invoke build --image=postgres --from-packages" in caught.value.hints[0]


@pytest.mark.usefixtures("no_images")
def test_packages_make_no_other_platform() -> None:
    with pytest.raises(UserError, match="this machine's platform alone"):
        build.build(["mlflow"], from_packages=True, platforms=["linux/arm64"])


def test_the_official_image_is_found_before_the_built_one(monkeypatch: pytest.MonkeyPatch) -> None:
    official = catalogue.image("postgres").official
    monkeypatch.setattr(engine, "inspect", lambda _: {"Id": "x"})
    assert build.find("postgres") == official
    monkeypatch.setattr(engine, "inspect", lambda name: None if name == official else {"Id": "x"})
    assert build.find("postgres") == build.reference("postgres")


def test_a_proxys_password_is_in_no_argument(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example:3128")
    command = build.build_command(tmp_path, "a:b", "base", "1")
    assert "--build-arg=HTTPS_PROXY" in command
    assert not any("hunter2" in argument for argument in command)


def test_a_base_has_another_tag_when_its_packages_change() -> None:
    base = catalogue.image("mlflow").base
    assert packages.tag(base) != packages.tag(catalogue.Base(base.name, base.reference, ("python3",)))


def test_the_bootstrap_takes_sources_settings_and_hook_from_its_folder(tmp_path: Path) -> None:
    command = packages.bootstrap_command(catalogue.image("mlflow").base, "trixie", tmp_path)
    assert command[-3:] == ["trixie", str(tmp_path / "root.tar"), str(tmp_path / "sources.list")]
    assert f"--aptopt={tmp_path}/apt.conf" in command


def test_what_a_failed_command_said_last_is_in_the_error() -> None:
    with pytest.raises(UserError, match="baking failed") as caught:
        engine.run(["sh", "-c", "echo out of flour >&2; exit 3"], doing="baking")
    assert caught.value.hints == ("out of flour",)


def test_the_entry_point_of_postgres_is_valid_bash() -> None:
    script = catalogue.FOLDER / "postgres" / "entrypoint"
    subprocess.run(["bash", "-n", str(script)], check=True)
