"""Fixtures for every test: a quiet mlflow client that never waits for what is not there."""

from __future__ import annotations

import os

os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
    GIT_PYTHON_REFRESH="quiet",
)
