"""MLflow's own tables by name: what may be deleted from and replaced. Whatever else a database holds is its owner's.

The names are those of every schema revision (mlflow/store/db_migrations/versions of MLflow 3.17.2)
and of the basic-auth app, which may share the database (mlflow/server/auth/db/migrations/versions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TRACKING = frozenset(
    """
    assessments budget_policies datasets endpoint_bindings endpoint_model_mappings endpoint_tags endpoints
    entity_associations evaluation_dataset_records evaluation_dataset_tags evaluation_datasets experiment_tags
    experiments guardrail_configs guardrails input_tags inputs issues job_locks jobs label_schemas latest_metrics
    logged_model_metrics logged_model_params logged_model_tags logged_models mcp_access_endpoints mcp_server_aliases
    mcp_server_tags mcp_server_version_tags mcp_server_versions mcp_servers metrics model_definitions
    model_version_tags model_versions online_scoring_configs params registered_model_aliases registered_model_tags
    registered_models review_queue_items review_queue_label_schemas review_queue_users review_queues runs
    scheduler_leases scorer_versions scorers secrets span_metrics spans sql_assessment_daily_rollups
    sql_span_cost_daily_rollups sql_trace_metric_daily_rollups sql_trace_rollup_rebuild_queue tags trace_info
    trace_metrics trace_request_metadata trace_tags webhook_events webhooks workspaces
    """.split()
)
AUTH = frozenset(
    """
    experiment_permissions gateway_endpoint_permissions gateway_model_definition_permissions
    gateway_secret_permissions registered_model_permissions role_permissions roles scorer_permissions
    user_role_assignments users workspace_permissions
    """.split()
)
HEAD, AUTH_HEAD = "dc11669786a5", "f1a2b3c4d5e6"  # the newest revisions that these lists know
REVISION, AUTH_REVISION = "alembic_version", "alembic_version_auth"
_FIRST_AUTH = {"users", "experiment_permissions", "registered_model_permissions"}
# What else MLflow's migrations make in a PostgreSQL schema (mlflow/store/db_migrations/versions/1bd49d398cd23...).
ROUTINES = frozenset({"prevent_secrets_aad_mutation"})


def has_auth(present: Iterable[str]) -> bool:
    """Whether basic auth has its tables here: their revision, or the three that it began with, before MLflow 3.6.

    ``users`` and ``roles`` alone are names that others take, too.
    """
    names = set(present)
    return AUTH_REVISION in names or names >= _FIRST_AUTH


def has_tracking(present: Iterable[str]) -> bool:
    """Whether a tracking server or a registry has its tables here; MLflow makes those of both in either."""
    return set(present) >= {"experiments", "runs"}


def revision_table(present: Iterable[str]) -> str:
    """Return the table that has a database's revision: basic auth's, where nothing else of MLflow's is there."""
    names = set(present)
    return AUTH_REVISION if AUTH_REVISION in names and not has_tracking(names) else REVISION


def own(present: Iterable[str]) -> list[str]:
    """Return which of a schema's tables are MLflow's, in the order given; see `has_auth`."""
    names = list(present)
    mine = TRACKING | {REVISION} | (AUTH | {AUTH_REVISION} if has_auth(names) else set())
    return [name for name in names if name in mine]


def linked(mine: Iterable[str], keys: Iterable[tuple[str, str]]) -> set[str]:
    """Return tables of MLflow's and all that foreign keys tie to them, of a schema that is newer than these lists.

    Args:
        mine: tables that are known to be MLflow's.
        keys: for each foreign key, the table that has it and the one that it refers to.
    """
    tied, pairs = set(mine), list(keys)
    while more := {name for pair in pairs if tied & set(pair) for name in pair} - tied:
        tied |= more
    return tied


def is_mlflow(table: str) -> bool:
    """Whether a table of this name, in the schema that MLflow uses, is one that MLflow makes.

    ``alembic_...`` is kept for revisions: MLflow itself takes no table of such a name for a table of somebody else
    (mlflow.store.db.utils).
    """
    return table in TRACKING or table in AUTH or table.startswith("alembic_")
