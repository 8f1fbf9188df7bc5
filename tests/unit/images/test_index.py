"""Reading which Python package index a machine is configured for."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from images import index

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/uv").mkdir()
    return tmp_path


def test_the_environment_comes_before_the_users_file(home: Path) -> None:
    (home / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://file.example/simple\n")
    assert index.configured({}, home).url == "https://file.example/simple"
    assert (
        index.configured({"PIP_INDEX_URL": "https://env.example/simple"}, home).url
        == "https://env.example/simple"
    )


def test_every_folder_of_configuration_is_read(home: Path, tmp_path: Path) -> None:
    for folder, installer, text in (
        (
            "own",
            "pip/pip.conf",
            "[install]\ntrusted-host = own.example\n[list]\nindex-url = https://not.example\n",
        ),
        ("shared", "pip/pip.conf", "[global]\nindex-url = https://shared.example/simple\n"),
        ("shared", "uv/uv.toml", 'extra-index-url = ["https://more.example/simple"]\n'),
    ):
        path = tmp_path / folder / installer
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places = {"XDG_CONFIG_HOME": str(tmp_path / "own"), "XDG_CONFIG_DIRS": str(tmp_path / "shared")}

    configuration = index.configured(places, home)

    assert configuration.url == "https://shared.example/simple"
    assert configuration.trusted == ("own.example",)
    assert configuration.extra == ("https://more.example/simple",)


def test_a_file_that_pip_cannot_read_leaves_its_default(home: Path) -> None:
    (home / ".config/pip/pip.conf").write_text("no section\n")
    assert index.configured({}, home).url == ""


def test_uvs_own_settings_count_too(home: Path) -> None:
    (home / ".config/uv/uv.toml").write_text(
        '[[index]]\nurl = "https://default.example/simple"\ndefault = true\n[[index]]\nurl = "https://more.example/simple"\n'
    )
    configuration = index.configured({"UV_INDEX": "named=https://named.example/simple"}, home)
    assert configuration.url == "https://default.example/simple"
    assert configuration.extra == ("https://named.example/simple", "https://more.example/simple")


def test_what_lies_on_this_machines_disk_is_left_out(home: Path) -> None:
    configuration = index.configured(
        {"PIP_EXTRA_INDEX_URL": "file:///srv/simple https://more.example/simple"}, home
    )
    assert configuration.extra == ("https://more.example/simple",)


def test_a_program_on_this_machine_sees_its_disk_too(home: Path) -> None:
    environ = {
        "PIP_EXTRA_INDEX_URL": "file:///srv/simple https://more.example/simple",
        "PIP_TRUSTED_HOST": "a",
    }
    variables = index.configured(environ, home, local=True).variables()
    assert variables["UV_INDEX"] == "file:///srv/simple https://more.example/simple"
    assert variables["UV_INSECURE_HOST"] == "a"
    assert "UV_DEFAULT_INDEX" not in variables


def test_the_files_are_what_pip_and_uv_read(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificates")
    configuration = index.Index(
        "https://a.example/simple", ("https://b.example/simple",), ("a.example",), bundle
    )
    files = configuration.files()
    table = tomllib.loads(files["uv.toml"].decode())
    assert table["index-url"] == "https://a.example/simple"
    assert table["extra-index-url"] == ["https://b.example/simple"]
    assert "index-url = https://a.example/simple" in files["pip.conf"].decode().splitlines()
    assert files["ca.pem"] == b"certificates"


def test_a_machine_with_no_settings_uses_the_installers_own() -> None:
    files = index.Index().files()
    assert "index-url" not in files["pip.conf"].decode()
    assert "index-url" not in tomllib.loads(files["uv.toml"].decode())


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:3141/root", True),
        ("http://localhost/simple", True),
        ("https://a.example/simple", False),
        ("", False),
    ],
)
def test_an_index_on_loopback_is_known(url: str, loopback: bool) -> None:
    assert index.is_loopback(url) is loopback
