"""What the MLflow image promises."""

from __future__ import annotations

import pytest

from images import catalogue, engine
from tests.support.containers import HARDENED, Runner, built, docker

pytestmark = pytest.mark.docker

# Runs inside the image: everything a stack uses, with what was left out of mlflow's requirements left out.
IMPORTS = """
import boto3, flask_wtf, huey, prometheus_flask_exporter, psycopg2, slowapi
import mlflow.gateway.app, mlflow.server, mlflow.server.fastapi_app
import mlflow.server.auth, mlflow.server.gateway_api, mlflow.server.jobs, mlflow.server.prometheus_exporter
import mlflow.store.artifact.s3_artifact_repo, mlflow.store.artifact.mlflow_artifacts_repo
import mlflow.store.db.utils, mlflow.store.tracking.sqlalchemy_store
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.utils.crypto
from mlflow.gateway.providers import anthropic, bedrock, gemini, openai
from pathlib import Path
import sqlalchemy
assert Path(mlflow.server.__file__).parent.joinpath("js/build/index.html").is_file(), "the UI is missing"
sqlalchemy.create_engine("postgresql+psycopg2://nobody@127.0.0.1/none")
store = mlflow.store.artifact.s3_artifact_repo.S3ArtifactRepository("s3://bucket/path")
print("all there")
"""

COMPILED = """
import sys, sysconfig
from importlib.util import cache_from_source
from pathlib import Path
roots = [Path("/opt/mlflow/lib"), Path("/opt/mlflow-stacks"), Path(sysconfig.get_path("stdlib"))]
# A few packages ship templates that are no valid Python.
modules = [path for root in roots for path in root.rglob("*.py")]
broken = []
for path in modules:
    if Path(cache_from_source(str(path))).exists():
        continue
    try:
        compile(path.read_bytes(), str(path), "exec")
    except SyntaxError:
        continue
    broken.append(str(path))
print(broken)
"""


def in_image(*argv: str) -> str:
    return docker("run", "--rm", "--network=none", *HARDENED, built("mlflow"), *argv)


def test_everything_a_stack_uses_imports() -> None:
    assert in_image("python", "-W", "ignore", "-c", IMPORTS).endswith("all there")


def test_what_the_excludes_name_is_not_in_it() -> None:
    names = ["pyarrow", "scipy", "sklearn", "matplotlib", "skops", "docker", "gunicorn", "pip", "ensurepip"]
    script = f"from importlib.util import find_spec; print([name for name in {names} if find_spec(name)])"
    assert in_image("python", "-c", script) == "[]"


def test_every_module_is_compiled() -> None:
    assert in_image("python", "-W", "ignore", "-c", COMPILED) == "[]"


def test_unpacked_it_takes_at_most_500_mb() -> None:
    image = engine.inspect(built("mlflow"))
    assert image is not None
    assert image["Size"] <= 500_000_000


def test_the_modules_of_this_repository_import_from_the_image() -> None:
    present = [
        name.removesuffix(".py")
        for name in catalogue.image("mlflow").sources
        if (catalogue.ROOT / name).exists()
    ]
    script = f"import importlib; print([importlib.import_module(name).__file__ for name in {present}])"
    where = in_image("python", "-c", script)
    assert where.count("/opt/mlflow-stacks/") == len(present)


def test_hardened_it_serves_by_itself_and_its_health_check_tells(run: Runner) -> None:
    container = run(
        *(*HARDENED, "--tmpfs=/var/lib/mlflow:uid=10001,gid=10001", "--network=none", "--health-interval=1s"),
        *("--env=MLFLOW_BACKEND_STORE_URI=sqlite:////var/lib/mlflow/mlflow.db", built("mlflow")),
    )
    container.wait_healthy()
    assert container.says("id", "--user") == "10001"
    assert not container.succeeds("touch", "/opt/mlflow/x")
    check = ("python", "-I", "-S", "/opt/mlflow-stacks/healthcheck.py")
    assert container.succeeds(*check)
    assert not container.succeeds(*check, "http://127.0.0.1:5000/absent")
    assert not container.succeeds(*check, "http://127.0.0.1:5001/ready")
    docker("stop", "--time=60", container.id)
    assert container.state()["ExitCode"] == 0


def test_a_new_volume_belongs_to_the_user_of_the_image(volume: str) -> None:
    mount = f"--volume={volume}:/var/lib/mlflow"
    script = "from pathlib import Path; Path('/var/lib/mlflow/x').write_text('kept')"
    docker("run", "--rm", mount, *HARDENED, built("mlflow"), "python", "-c", script)
    assert docker("run", "--rm", mount, *HARDENED, built("mlflow"), "cat", "/var/lib/mlflow/x") == "kept"
