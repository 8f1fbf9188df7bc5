"""The standalone gateway: mlflow's application, whatever provider key is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.asgi import AllowedHosts, error_body, no_key
from process.loading import loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import Request

    from gateway.config import Gateway
    from process.asgi import App


def create(gateway: Gateway, hosts: Sequence[str]) -> App:
    """Make the application (``mlflow.gateway.app``, 3.17.2).

    Args:
        gateway: what to serve; an endpoint whose key is missing answers 503 with the reason.
        hosts: patterns of the Host header that may be served.
    """
    with loading():  # here, for mlflow takes seconds
        from fastapi.responses import JSONResponse
        from mlflow.exceptions import MlflowException
        from mlflow.gateway.app import create_app_from_config
        from mlflow.gateway.config import EndpointConfig, GatewayConfig, TrafficRouteConfig
        from mlflow.gateway.exceptions import AIGatewayException
        from starlette.exceptions import HTTPException

    missing = gateway.missing()
    config = GatewayConfig(
        endpoints=[
            EndpointConfig(**endpoint.for_mlflow()) for endpoint in gateway.endpoints if not endpoint.missing
        ],
        routes=[TrafficRouteConfig(**route.for_mlflow()) for route in gateway.routes if not route.missing],
    )
    app: Any = create_app_from_config(config)
    served = {entry.name for entry in gateway.all()} - missing.keys()
    provider = app._get_provider_by_name

    def provider_or_reason(name: str) -> Any:
        if name in missing:
            raise HTTPException(503, no_key(name, missing[name]))
        if name not in served:
            raise HTTPException(404, f"there is no endpoint '{name}'")
        return provider(name)

    app._get_provider_by_name = provider_or_reason

    def refuse(name: str) -> Any:
        async def handler() -> None:
            provider_or_reason(name)

        return handler

    for name in missing:
        for path in (f"/gateway/{name}/invocations", f"/endpoints/{name}/invocations"):
            app.add_api_route(path, refuse(name), methods=["POST"], include_in_schema=False)

    async def failed(_: Request, error: Any) -> JSONResponse:
        if hasattr(error, "get_http_status_code"):  # mlflow's
            return JSONResponse(error_body(error.message), error.get_http_status_code())
        return JSONResponse(error_body(error.detail), error.status_code)

    # Without these, mlflow's routes under /v1 answer "Internal Server Error" whatever the provider said.
    for kind in (AIGatewayException, HTTPException, MlflowException):
        app.add_exception_handler(kind, failed)
    return AllowedHosts(app, hosts)
