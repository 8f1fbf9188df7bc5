"""The AI gateway: one `gateway.yaml` for both of mlflow's gateways, standalone and inside the server."""
