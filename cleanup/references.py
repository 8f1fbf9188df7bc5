"""References that MLflow makes by value, without a foreign key that the database could tell us about.

Each names the MLflow module that writes it (read in MLflow 3.17.2). Everything else about the schema is
read from the database itself, see `cleanup.schema`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Action = Literal["delete", "null"]

TRACKING = "mlflow.store.tracking.sqlalchemy_store"
MODELS = "mlflow.store.tracking.dbmodels.models"


@dataclass(frozen=True)
class Reference:
    """A column that holds the key of another table's row.

    `action` says what happens to the referring row when its target is deleted: the row goes, or its column
    becomes NULL. `where` are the values of other columns that make it this kind of reference. With
    `json_key` the value is that key's string inside the column's JSON text. `source` is the MLflow module.
    `orphans` is False where a value without a target does not mean that the target was deleted.
    """

    table: str
    column: str
    target: str
    action: Action
    source: str
    where: dict[str, str] = field(default_factory=dict)
    json_key: str | None = None
    orphans: bool = True
    tombstones: tuple[str, ...] = ()  # values that MLflow writes in place of an id
    target_column: str | None = None  # None: the only column of the target's primary key


REFERENCES: tuple[Reference, ...] = (
    Reference("inputs", "destination_id", "runs", "delete", TRACKING, {"destination_type": "RUN"}),
    Reference("inputs", "source_id", "runs", "delete", TRACKING, {"source_type": "RUN_INPUT"}),
    Reference("inputs", "source_id", "runs", "delete", TRACKING, {"source_type": "RUN_OUTPUT"}),
    Reference(
        "inputs",
        "source_id",
        "datasets",
        "delete",
        TRACKING,
        {"source_type": "DATASET"},
        target_column="dataset_uuid",
    ),
    Reference(
        "inputs", "destination_id", "logged_models", "delete", TRACKING, {"destination_type": "MODEL_INPUT"}
    ),
    Reference(
        "inputs", "destination_id", "logged_models", "delete", TRACKING, {"destination_type": "MODEL_OUTPUT"}
    ),
    Reference("input_tags", "input_uuid", "inputs", "delete", TRACKING, target_column="input_uuid"),
    *(
        Reference(
            "entity_associations",
            f"{end}_id",
            target,
            "delete",
            "mlflow.entities.entity_type",
            {f"{end}_type": kind},
        )
        for end in ("source", "destination")
        for kind, target in (
            ("run", "runs"),
            ("trace", "trace_info"),
            ("experiment", "experiments"),
            ("model", "logged_models"),
            ("evaluation_dataset", "evaluation_datasets"),
        )
    ),
    Reference("logged_models", "source_run_id", "runs", "null", TRACKING),
    Reference(
        "logged_model_metrics", "dataset_uuid", "datasets", "null", TRACKING, target_column="dataset_uuid"
    ),
    Reference(
        "model_versions",
        "run_id",
        "runs",
        "null",
        "mlflow.store.model_registry.sqlalchemy_store",
        tombstones=("REDACTED-RUN-ID", ""),
    ),
    Reference("assessments", "run_id", "runs", "null", MODELS),
    Reference(
        "assessments",
        "assessment_metadata",
        "runs",
        "delete",  # what MLflow itself does as soon as the run is deleted (_mark_run_deleted)
        "mlflow.tracing.constant.AssessmentMetadataKey",
        json_key="mlflow.assessment.sourceRunId",
    ),
    Reference("assessments", "experiment_id", "experiments", "null", MODELS),
    Reference("tags", "value", "runs", "delete", "mlflow.utils.mlflow_tags", {"key": "mlflow.parentRunId"}),
    Reference(
        "trace_request_metadata",
        "value",
        "runs",
        "delete",
        "mlflow.tracing.constant.TraceMetadataKey",
        {"key": "mlflow.sourceRun"},
    ),
    Reference(
        "trace_request_metadata",
        "value",
        "logged_models",
        "delete",
        "mlflow.tracing.constant.TraceMetadataKey",
        {"key": "mlflow.modelId"},
    ),
    Reference("review_queue_items", "item_id", "trace_info", "delete", TRACKING, {"item_type": "trace"}),
    Reference("review_queue_label_schemas", "schema_id", "label_schemas", "delete", TRACKING),
    Reference(
        "endpoint_bindings",
        "resource_id",
        "scorers",
        "delete",
        "mlflow.entities.gateway_endpoint",
        {"resource_type": "scorer"},
    ),
    Reference(
        "evaluation_dataset_records", "source_id", "trace_info", "null", MODELS, {"source_type": "TRACE"}
    ),
    *(
        Reference(table, "experiment_id", "experiments", "delete", TRACKING)
        for table in (
            "sql_trace_metric_daily_rollups",
            "sql_span_cost_daily_rollups",
            "sql_assessment_daily_rollups",
            "sql_trace_rollup_rebuild_queue",
        )
    ),
    # permissions, when basic auth shares the database; patterns such as * name no experiment
    *(
        Reference(
            table, "experiment_id", "experiments", "delete", "mlflow.server.auth.db.models", orphans=False
        )
        for table in ("experiment_permissions", "scorer_permissions")
    ),
    Reference(
        "role_permissions",
        "resource_pattern",
        "experiments",
        "delete",
        "mlflow.server.auth.db.models",
        {"resource_type": "experiment"},
        orphans=False,
    ),
)

# Columns of these names refer to runs, experiments, models or traces. One that has no foreign key and is not
# in the table above would be left dangling, so it stops the plan.
SUSPICIOUS_COLUMNS = frozenset(
    {
        "run_id",
        "run_uuid",
        "source_run_id",
        "parent_run_id",
        "experiment_id",
        "trace_id",
        "request_id",
        "model_id",
        "logged_model_id",
        "dataset_uuid",
        "input_uuid",
    }
)
