"""What a test reaches of a stack beyond its command line: stores and processes."""

from __future__ import annotations

import json
import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from develop.scratch.stack import StackUnderTest
    from tests.support import story


class Inside(ABC):
    """What a test reaches beyond the command line: the stack's stores and its processes."""

    def __init__(self, stack: StackUnderTest) -> None:
        self.stack = stack

    @abstractmethod
    def python(self, code: str) -> str:
        """Run Python where the tracking server runs, with its variables; what it printed."""

    @abstractmethod
    def kill(self, service: str) -> None:
        """Send SIGKILL to a service's main process, as a crash or the kernel would."""

    @abstractmethod
    def identities(self) -> dict[str, object]:
        """What changes when a service is started again, by service."""

    @abstractmethod
    def watched(self) -> Callable[[], list[object]]:
        """Remember what runs now; called after `down`, the result tells what of it is left."""

    @abstractmethod
    def places(self) -> dict[str, str]:
        """What this engine shows of a stack, beyond what `what_anybody_can_read` finds."""

    def sql(self, statement: str) -> list[list[Any]]:
        """The rows of a statement, by MLflow's own role."""
        code = (
            "import json, os, psycopg2; from sqlalchemy.engine import make_url\n"
            "url = make_url(os.environ['MLFLOW_BACKEND_STORE_URI'])\n"
            "link = psycopg2.connect(host=url.host, port=url.port, user=url.username, dbname=url.database)\n"
            "link.autocommit = True; cursor = link.cursor()\n"
            f"cursor.execute({statement!r}); print(json.dumps(cursor.fetchall(), default=str))"
        )
        return list(json.loads(self.python(code)))

    def objects(self) -> dict[str, int]:
        """The keys of the bucket, with their bytes."""
        code = (
            "import boto3, json, os\n"
            "store = boto3.client('s3', endpoint_url=os.environ['MLFLOW_S3_ENDPOINT_URL'])\n"
            "pages = store.get_paginator('list_objects_v2').paginate(Bucket='mlflow')\n"
            "print(json.dumps({row['Key']: row['Size'] for page in pages for row in page.get('Contents', [])}))"
        )
        return dict(json.loads(self.python(code)))


def run_python(command: list[str], code: str, env: dict[str, str] | None = None) -> str:
    """Run a program that reads Python from its standard input; a failure fails with what it said."""
    answer = subprocess.run(
        command, input=code, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def model_is_in_both_stores(inside: Inside, told: story.Told) -> None:
    """A logged model's row is in PostgreSQL and its files are in the bucket."""
    rows = inside.sql(
        f"SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = '{told.parent}'"
    )
    assert len(rows) == 1
    model, location = rows[0]
    assert location.startswith("mlflow-artifacts:")
    folder = f"artifacts/{told.experiment}/models/{model}/artifacts/"
    names = {key.removeprefix(folder) for key in inside.objects() if key.startswith(folder)}
    assert {"MLmodel", "python_model.pkl"} <= names
    assert inside.sql(f"SELECT version FROM model_versions WHERE run_id = '{told.parent}'") == [[1]]
