"""Images of ours that nothing uses, on a real engine; only what this test made is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from images import build, engine
from tests.support.containers import docker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docker


def test_an_image_that_a_container_was_made_from_stays(tmp_path: Path) -> None:
    images = {}
    for name in ("unused", "used"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "Dockerfile").write_text(
            f'FROM scratch\nLABEL {build.LABEL}="test-{name}"\nCOPY Dockerfile /\nCMD ["/none"]\n'
        )
        images[name] = docker("build", "--quiet", f"--tag=mlflow-stacks/test-prune:{name}", str(folder))
    container = docker("create", images["used"])
    try:
        candidates = {identity for identity, _, _ in build.unused()}
        assert images["unused"] in candidates
        assert images["used"] not in candidates
        assert images["unused"] not in {
            identity for identity, _, _ in build.unused(["mlflow-stacks/test-prune:unused"])
        }

        build.remove(images.values())

        assert engine.inspect(images["unused"]) is None
        assert engine.inspect(images["used"]) is not None
    finally:
        docker("rm", container)
        docker("image", "rm", "--force", images["used"], check=False)
