"""The contract that the PostgreSQL image made from packages shares with docker.io/library/postgres."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import HARDENED, Container, Runner, built, docker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docker

PASSWORD = "pass word'\"\\$"


@pytest.fixture
def options(volume: str, tmp_path: Path) -> list[str]:
    """What a stack gives the container; the password is in a file."""
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o644)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "10-first.sql").write_text(
        "create table made (at_first_start int); insert into made values (1);"
    )
    second = "psql --command 'insert into made values (2)'\ntest -z \"${WAIT:-}\" || sleep 3600\n"
    (scripts / "20-second.sh").write_text(second)
    for path in (tmp_path, scripts):
        path.chmod(0o755)
    return [
        *(*HARDENED, "--tmpfs=/var/run/postgresql", f"--volume={volume}:/var/lib/postgresql"),
        f"--volume={tmp_path}/password:/run/secrets/password:ro",
        f"--volume={scripts}:/docker-entrypoint-initdb.d:ro",
        *("--env=POSTGRES_PASSWORD_FILE=/run/secrets/password", "--env=POSTGRES_USER=owner"),
        "--env=POSTGRES_DB=tracking",
    ]


def wait_ready(container: Container) -> None:
    container.wait(
        lambda: container.succeeds(
            "pg_isready", "--quiet", "--host=127.0.0.1", "--username=owner", "--dbname=tracking"
        )
    )


def ask(container: Container, query: str, password: str = PASSWORD) -> str:
    """The answer over TCP, or what psql said instead."""
    answer = subprocess.run(
        [
            *("docker", "exec", "--env=PGPASSWORD", container.id),
            *(
                "psql",
                "--host=127.0.0.1",
                "--username=owner",
                "--dbname=tracking",
                "--tuples-only",
                "--no-align",
            ),
            f"--command={query}",
        ],
        env={"PGPASSWORD": password, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return (answer.stdout + answer.stderr).strip()


def test_data_survives_the_replacement_of_the_container(run: Runner, options: list[str]) -> None:
    first = run(*options, built("postgres"))
    wait_ready(first)
    assert first.says("id", "--user") == "999"
    assert ask(first, "select string_agg(at_first_start::text, ',') from made") == "1,2"
    assert "password authentication failed" in ask(first, "select 1", password="wrong")
    ask(first, "create table kept (x int); insert into kept select generate_series(1, 1000)")
    first.stop()
    second = run(*options, built("postgres"))
    wait_ready(second)
    assert ask(second, "select count(*) from kept") == "1000"
    assert ask(second, "select count(*) from made") == "2", "the scripts run once"
    assert second.succeeds("pg_dump", "--username=owner", "--file=/tmp/dump", "tracking")


def test_docker_stops_it_with_a_clean_shutdown(run: Runner, options: list[str]) -> None:
    container = run(*options, built("postgres"))
    wait_ready(container)
    docker("stop", "--time=60", container.id)
    assert container.state()["ExitCode"] == 0


def test_a_first_start_that_was_killed_starts_over(run: Runner, options: list[str]) -> None:
    killed = run(*options, "--env=WAIT=1", built("postgres"))
    killed.wait(lambda: "20-second.sh" in killed.logs())
    docker("kill", killed.id)
    again = run(*options, built("postgres"))
    wait_ready(again)
    assert ask(again, "select count(*) from made") == "2"


def test_the_password_is_in_no_process_and_no_setting(run: Runner, options: list[str]) -> None:
    container = run(*options, built("postgres"))
    wait_ready(container)
    assert PASSWORD not in docker("inspect", container.id)
    assert PASSWORD not in container.says("sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '")
    assert PASSWORD not in container.logs()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--env=POSTGRES_USER=owner", "no superuser password"),
        ("--env=POSTGRES_PASSWORD_FILE=/run/secrets/absent", "cannot read /run/secrets/absent"),
        ("--user=0", "does not run as root"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_made(setting: str, said: str) -> None:
    answer = subprocess.run(
        ["docker", "run", "--rm", *HARDENED, setting, built("postgres")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert said in answer.stderr


def test_data_of_another_major_version_is_refused_and_left_alone(volume: str) -> None:
    mount = f"--volume={volume}:/var/lib/postgresql"
    image = built("postgres")
    make = "mkdir -p /var/lib/postgresql/9/docker && echo 9 > /var/lib/postgresql/9/docker/PG_VERSION"
    docker("run", "--rm", mount, "--entrypoint=sh", image, "-c", make)
    answer = subprocess.run(
        ["docker", "run", "--rm", mount, "--env=POSTGRES_PASSWORD=x", image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "the volume holds data of PostgreSQL 9" in answer.stderr
    assert docker("run", "--rm", mount, "--entrypoint=ls", image, "/var/lib/postgresql").split()[0] != ""
