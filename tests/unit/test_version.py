"""The version of this project stands in one place, and everything that is kept carries it."""

import tomllib

from images import build, catalogue
from stacks.verbs import about
from version import VERSION


def test_pyproject_has_the_version() -> None:
    project = tomllib.loads((catalogue.ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_every_image_is_labelled_with_it() -> None:
    for name in catalogue.names():
        text = (catalogue.FOLDER / name / "Dockerfile").read_text()
        assert 'org.mlflow-stacks.version="${PROJECT}"' in text
    assert f"--build-arg=PROJECT={VERSION}" in build.build_command(catalogue.ROOT, "a:b", "base", "1")


def test_about_says_what_is_here() -> None:
    answer = about.about()
    assert answer["version"] == VERSION
    assert answer["mlflow"] == catalogue.image("mlflow").version
    assert answer["packages"]["supervisor"]
    assert set(answer) == {
        *("version", "revision", "python", "platform", "mlflow", "docker", "compose", "packages", "stacks")
    }
