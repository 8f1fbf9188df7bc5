"""MLflow's own tables by name: what may be deleted from and replaced. Whatever else a database holds is its owner's.

The names are those of every schema revision (mlflow/store/db_migrations/versions of MLflow 3.17.2)
and of the basic-auth app, which may share the database (mlflow/server/auth/db/migrations/versions).
"""

from __future__ import annotations

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
    """.split()  # noqa: SIM905 (75 lines otherwise)
)
AUTH = frozenset(
    """
    experiment_permissions gateway_endpoint_permissions gateway_model_definition_permissions
    gateway_secret_permissions registered_model_permissions role_permissions roles scorer_permissions
    user_role_assignments users workspace_permissions
    """.split()  # noqa: SIM905 (75 lines otherwise)
)


def is_mlflow(table: str) -> bool:
    """Whether a table of this name, in the schema that MLflow uses, is one that MLflow makes.

    ``alembic_...`` is kept for revisions: MLflow itself takes no table of such a name for a table of somebody else
    (mlflow.store.db.utils).
    """
    return table in TRACKING or table in AUTH or table.startswith("alembic_")
