"""Rendering is a pure function: golden files for every stack and engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from console import UserError
from stacks import catalogue
from stacks.definition.rendering import FRAMES, render
from stacks.definition.services import SERVICES
from tests.support.deployments import deployment

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"


@pytest.mark.parametrize("engine", sorted(FRAMES))
@pytest.mark.parametrize("stack", catalogue.names())
def test_every_stack_renders_to_its_golden_file(stack: str, engine: str) -> None:
    for path, text in render(deployment(stack), engine).items():
        golden = GOLDEN / stack / path
        if UPDATE:
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_text(text)
        assert text == golden.read_text(), (
            "if this is meant: UPDATE_GOLDEN=1 pytest tests/unit/test_render.py"
        )


@pytest.mark.parametrize(
    "settings", [(), ("gateway=standalone", "cleanup_schedule=0 3 * * *"), ("object_store=rustfs",)]
)
@pytest.mark.parametrize("stack", catalogue.names())
def test_every_container_gets_nothing_it_does_not_need(stack: str, settings: tuple[str, ...]) -> None:
    limits = ("memory_limit=1500m", "pids_limit=300", "log_max_size=5m", "log_files=7")
    subject = deployment(stack, *settings, *limits)
    services = yaml.safe_load(render(subject, "compose")["compose.yaml"])["services"]
    assert list(services) == list(subject.services)
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert service["mem_limit"] == "1500m", name
        assert service["pids_limit"] == 300, name
        assert service["logging"] == {
            "driver": "json-file",
            "options": {"max-size": "5m", "max-file": "7"},
        }, name
        labels = {"org.mlflow-stacks.project": subject.project, "org.mlflow-stacks.stack": stack}
        assert service["labels"] == labels, name
        assert service["restart"] == ("no" if SERVICES[name].oneshot else "unless-stopped"), name
        assert not {"container_name", "privileged", "cap_add"} & service.keys(), name


@pytest.mark.parametrize(
    "settings", [(), ("gateway=standalone",), ("object_store_url=http://192.0.2.1:5558",)]
)
@pytest.mark.parametrize("stack", catalogue.names())
def test_nothing_is_published_beyond_loopback_unless_a_setting_says_so(
    stack: str, settings: tuple[str, ...]
) -> None:
    rendered = render(deployment(stack, *settings), "compose")["compose.yaml"]
    services = yaml.safe_load(rendered)["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_rustfs_is_told_what_its_image_reads() -> None:
    """Names and paths: docs.rustfs.com, installation/container/docker, and the image's entrypoint.sh."""
    rendered = render(deployment("quickstart", "object_store=rustfs"), "compose")["compose.yaml"]
    store = yaml.safe_load(rendered)["services"]["object-store"]
    assert store["environment"] == {
        "RUSTFS_VOLUMES": "/data",
        "RUSTFS_ADDRESS": "0.0.0.0:9000",
        "RUSTFS_CONSOLE_ENABLE": "false",
        "RUSTFS_CHECK_UPDATE": "false",
        "RUSTFS_OBS_LOG_DIRECTORY": "",
        "RUSTFS_ACCESS_KEY_FILE": "/run/secrets/object-store-root-user",
        "RUSTFS_SECRET_KEY_FILE": "/run/secrets/object-store-root-password",
        "_MLFLOW_STACKS_SECRETS_GENERATION": "0",
    }
    assert store["healthcheck"]["test"] == ["CMD", "curl", "-sf", "http://127.0.0.1:9000/health"]
    assert "command" not in store
    assert store["volumes"] == ["object-store-data:/data"]


def test_a_setting_with_a_dollar_or_a_percent_sign_arrives_as_it_is() -> None:
    where = ("cors_allowed_origins=https://a$b%c.example",)
    compose = render(deployment("local", *where), "compose")["compose.yaml"]
    supervisord = render(deployment("local", *where), "host")["supervisord.conf"]
    assert "https://a$$b%c.example" in compose
    assert "https://a$b%%c.example" in supervisord


def test_an_allowed_host_may_change_things_from_its_own_pages() -> None:
    rendered = render(deployment("local", "allowed_hosts=ml.example.com"), "compose")["compose.yaml"]
    server = yaml.safe_load(rendered)["services"]["mlflow"]["environment"]
    assert "ml.example.com" in server["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "ml.example.com:*" in server["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "http://ml.example.com:5555" in server["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


def test_stacks_that_share_a_bucket_have_a_prefix_each() -> None:
    for settings, place in (((), "s3://mlflow/artifacts"), (("s3_prefix=team/one",), "s3://mlflow/team/one")):
        rendered = render(deployment("quickstart", *settings), "compose")["compose.yaml"]
        server = yaml.safe_load(rendered)["services"]["mlflow"]
        assert server["environment"]["MLFLOW_ARTIFACTS_DESTINATION"] == place
    for bad in ("", "/x", "x/", "a//b", "../x", "a b", ".hidden"):
        with pytest.raises(UserError):
            deployment("quickstart", f"s3_prefix={bad}")


def test_a_server_answers_at_the_address_it_listens_on() -> None:
    rendered = render(deployment("quickstart", "host=127.0.0.2"), "compose")["compose.yaml"]
    server = yaml.safe_load(rendered)["services"]["mlflow"]
    assert "127.0.0.2:*" in server["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "http://127.0.0.2:5555" in server["environment"]["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert server["ports"] == ["127.0.0.2:5555:5000"]
    host = render(deployment("quickstart", "host=127.0.0.2"), "host")["supervisord.conf"]
    assert "--tracking-uri http://127.0.0.2:5555" in host


def test_an_address_with_colons_is_published_in_brackets() -> None:
    rendered = render(deployment("local", "host=::1"), "compose")["compose.yaml"]
    assert yaml.safe_load(rendered)["services"]["mlflow"]["ports"] == ["[::1]:5555:5000"]


@pytest.mark.parametrize("engine", ["compose", "host"])
def test_only_what_the_stack_keeps_itself_is_marked_unasked(engine: str) -> None:
    """Another server may write to an external store, too."""
    own = "".join(render(deployment("quickstart"), engine).values())
    external = deployment("quickstart", "object_store=external", "s3_endpoint=http://192.0.2.1:9000")
    assert "--destination-alone" in own
    assert "--destination-alone" not in "".join(render(external, engine).values())
