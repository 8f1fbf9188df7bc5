"""Our entry of the MLflow tracking server: one process, honest exit codes, readiness, own transfers.

It runs the application that ``mlflow server`` runs (``mlflow.server.fastapi_app:app`` under uvicorn), without
that command's parent process, which exits 0 when the server failed and, killed itself, leaves it serving.
"""
