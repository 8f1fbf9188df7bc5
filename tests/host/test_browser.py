"""The UI in a real browser: what it shows, what it may change, and that no request leaves the machine."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest
from tests.support.browsing import NAME, browsing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.browser

# What mlflow's UI always asks for and its server has not: who is signed in (that is basic auth's), and an
# experiment of the name that a new one shall have.
ERRORS = {
    (404, "/ajax-api/2.0/mlflow/users/current"),
    (404, "/ajax-api/2.0/mlflow/experiments/get-by-name"),
}
NOTE = "hello from a text artifact"
PIXELS = 32


@dataclass(frozen=True)
class Logged:
    """What a client has logged for the browser to show: ids, and the model's name."""

    experiment: str
    run: str
    model: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    settings = {"port": free_port(), "allowed_hosts": NAME}
    subject = StackUnderTest("local", "host", tmp_path_factory.mktemp("state"), settings)
    printed = subject.invoke("up", "--stack=local", "--engine=host").stdout
    assert printed.split() == ["mlflow", subject.url]  # every address that `up` prints
    yield subject
    subject.down("--volumes", "--yes")


@pytest.fixture(scope="module")
def logged(stack: StackUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    import mlflow

    image = tmp_path_factory.mktemp("image") / "red.png"
    image.write_bytes(red_square())
    client = mlflow.MlflowClient(stack.url)
    experiment = client.create_experiment("seen in a browser")
    run = client.create_run(experiment, run_name="a-run-to-see").info.run_id
    client.log_metric(run, "loss", 0.25)
    client.log_text(run, NOTE, "notes.txt")
    client.log_artifact(run, str(image))
    client.create_registered_model("a-model-to-see")
    client.create_model_version("a-model-to-see", f"runs:/{run}/model", run)
    client.set_terminated(run)
    return Logged(experiment, run, "a-model-to-see")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", NAME])
def test_the_ui_shows_and_changes_things_at_every_address(
    stack: StackUnderTest, logged: Logged, name: str, tmp_path: Path
) -> None:
    import mlflow
    from playwright.sync_api import expect

    address = f"http://{name}:{stack.settings['port']}"
    runs = f"{address}/#/experiments/{logged.experiment}/runs"
    with browsing(tmp_path) as (page, requests):
        page.goto(runs)
        expect(page.get_by_role("link", name="a-run-to-see")).to_be_visible()

        page.goto(f"{address}/#/models/{logged.model}")
        expect(page.get_by_role("heading", name=logged.model)).to_be_visible()
        expect(page.get_by_role("link", name="Version 1")).to_be_visible()

        page.goto(f"{runs}/{logged.run}/artifacts/notes.txt")
        expect(page.get_by_text(NOTE)).to_be_visible()
        page.get_by_text("red.png", exact=True).click()
        page.wait_for_function(f"[...document.images].some(image => image.naturalWidth === {PIXELS})")

        page.goto(f"{address}/#/experiments")
        page.get_by_role("button", name="Create", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_placeholder("experiment name").fill(f"made at {name}")
        dialog.get_by_role("button", name="Create").click()
        page.wait_for_url("**/#/experiments/*/**")
        expect(page.get_by_text(f"made at {name}").first).to_be_visible()

    assert mlflow.MlflowClient(stack.url).get_experiment_by_name(f"made at {name}") is not None
    assert {request.origin for request in requests} == {address}
    assert {(request.status, request.path) for request in requests if (request.status or 0) >= 400} == ERRORS


def red_square() -> bytes:
    """A PNG image (its specification, ISO/IEC 15948)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", PIXELS, PIXELS, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xff\0\0" * PIXELS) * PIXELS
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)
