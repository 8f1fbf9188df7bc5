"""How flags and variables become what mlflow's application reads."""

from __future__ import annotations

import pytest

from server.environment import arguments, private_variables


def test_the_private_variables_are_those_of_mlflow() -> None:
    from mlflow.server import constants, handlers

    given = arguments(["--backend-store-uri=sqlite://", "--static-prefix=/x", "--expose-prometheus=/m"], {})
    variables = private_variables(given)
    assert variables[constants.BACKEND_STORE_URI_ENV_VAR] == "sqlite://"
    assert variables[constants.REGISTRY_STORE_URI_ENV_VAR] == "sqlite://"
    assert variables[constants.ARTIFACT_ROOT_ENV_VAR] == "mlflow-artifacts:/"
    assert variables[constants.ARTIFACTS_DESTINATION_ENV_VAR] == "./mlartifacts"
    assert variables[constants.SERVE_ARTIFACTS_ENV_VAR] == "true"
    assert variables[constants.PROMETHEUS_EXPORTER_ENV_VAR] == "/m"
    assert variables[handlers.STATIC_PREFIX_ENV_VAR] == "/x"


def test_a_flag_wins_over_its_variable_which_wins_over_the_default() -> None:
    environ = {"MLFLOW_BACKEND_STORE_URI": "sqlite://", "MLFLOW_PORT": "6000", "MLFLOW_WORKERS": "3"}
    given = arguments(["--port", "7000"], environ)
    assert (given.port, given.workers, given.host) == (7000, 3, "127.0.0.1")


def test_a_server_without_a_database_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments([], {})
    assert "MLFLOW_BACKEND_STORE_URI" in capsys.readouterr().err
