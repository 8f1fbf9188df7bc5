"""The job runner: the processes in which mlflow's background jobs run (off by default)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import UserError
from server import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.environment import Given


@contextmanager
def job_runner(given: Given) -> Iterator[None]:
    """Run mlflow's job runner beside this process, and end it with the block.

    Does what ``mlflow server`` does (``mlflow.server._run_server``). The runner watches this process
    and its consumers watch the runner, each once a second, so that none outlives a kill.

    Args:
        given: what `server.environment.arguments` returned.

    Raises:
        UserError: this version of MLflow has no background jobs.
        mlflow.exceptions.MlflowException: the backend store or a setting does not suit job execution.
    """
    try:
        from mlflow.server.jobs.utils import _check_requirements, _launch_job_runner
    except ModuleNotFoundError:
        raise UserError(
            "this version of MLflow has no background jobs",
            "do without them: MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
        ) from None
    launch: Any = _launch_job_runner
    # Where programs of this environment lie: some versions look for uv, which is installed with them.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    _check_requirements(given.backend_store_uri)
    try:  # later versions have several ways of running jobs
        from mlflow.server.jobs.executor_registry import validate_executor_config
        from mlflow.server.jobs.utils import _launch_job_execution_runner
    except ImportError:
        pass
    else:
        validate_executor_config()
        launch = _launch_job_execution_runner
    memory = Path("/dev/shm")  # noqa: S108 - the folder below it is ours alone
    with tempfile.TemporaryDirectory(
        prefix="mlflow-jobs-", dir=memory if memory.is_dir() else None
    ) as queues:
        os.environ[upstream.JOB_QUEUES] = queues
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(given.host, given.host)  # noqa: S104 - compared, not bound
        address = f"http://{host}:{given.port}{given.static_prefix}"
        runner: subprocess.Popen[bytes] = launch(
            {
                "MLFLOW_BACKEND_STORE_URI": given.backend_store_uri,
                "MLFLOW_DEFAULT_ARTIFACT_ROOT": given.default_artifact_root,
                "MLFLOW_TRACKING_URI": address,
                "MLFLOW_GATEWAY_URI": os.environ.get("MLFLOW_GATEWAY_URI") or address,
            },
            os.getpid(),
        )
        try:
            yield
        finally:
            runner.terminate()
            try:
                runner.wait(5)
            except subprocess.TimeoutExpired:
                runner.kill()
                runner.wait()
