"""The command line: every flag once, the same for a task and beside the data, and nothing taken that means nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from invoke.collection import Collection

import arguments
import commandline
import flags
import tasks
import values
import verbs
from cleanup.filters import KINDS
from console import UsageError
from images import catalogue
from stacks.engines.choice import ENGINES
from tests.support.programs import PROGRAMS
from verbs import VERBS, Request

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = {name: request for name, request in VERBS.items() if request.verb.group}
BESIDE = [*(request for request in VERBS.values() if request.verb.module), *PROGRAMS]


def check(*words: str) -> None:
    commandline.check(words, tasks.namespace, VERBS)


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as error:
        check(*words)
    assert error.value.exit_code == 2
    return str(error.value)


def test_every_verb_of_a_group_is_a_task_and_no_other() -> None:
    assert set(tasks.namespace.task_names) == set(TASKS)
    assert {request.verb.group for request in TASKS.values()} == {"Run", "Data", "Develop"}


@pytest.mark.parametrize(
    "request_type", [*VERBS.values(), *PROGRAMS], ids=lambda request_type: request_type.verb.name
)
def test_a_field_has_the_name_and_the_type_of_its_flag(request_type: type[Request]) -> None:
    hints = typing.get_type_hints(request_type)
    for flag in request_type.verb.flags:
        whole = tuple[str, ...] if isinstance(flag.empty, tuple) else type(flag.empty)
        assert hints[flag.attribute] == whole, flag.name


def test_a_letter_means_the_same_in_every_verb() -> None:
    meant: dict[str, set[str]] = {}
    for request in VERBS.values():
        for flag in request.verb.flags:
            if flag.short:
                meant.setdefault(flag.short, set()).add(flag.name)
    assert {letter: names for letter, names in meant.items() if len(names) > 1} == {}


def test_choices_are_those_that_there_are() -> None:
    assert set(flags.ENGINE.choices) == {"auto", *ENGINES}
    assert flags.ONLY.choices == KINDS


@pytest.mark.parametrize("name", TASKS)
def test_help_shows_each_flag_with_its_default(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help", name], [name, "--help"], [name, "-h"]):
        with pytest.raises(SystemExit) as end:
            check(*words)
        assert end.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for flag in TASKS[name].verb.of_task():
            assert f"{flag.spelled} {' '.join(flag.explained.split())}" in text


@pytest.mark.parametrize(
    "words",
    [
        ["--claim"],
        ["--ignore-reference=notes.run_uuid", "--ignore-reference=other.id"],
        ["--orphan-grace=12h"],
    ],
)
def test_what_messages_advise_is_a_flag_of_the_task(words: list[str]) -> None:
    check("cleanup", *words)


@pytest.mark.parametrize("task", ["migrate", "backup", "restore --backup=/set"])
def test_programs_of_postgresql_can_be_run_elsewhere_by_the_task(task: str) -> None:
    check(*task.split(), "--pg-command=docker compose exec -T postgres")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["cleanup", "--dry"], "--dry-run"),
        (["cleanup", "-d", "--yes"], "--dry-run"),
        (["--dry", "cleanup", "--yes"], "--dry-run"),
        (["-R", "cleanup"], "--dry-run"),
        (["cleanup", "--oldr-than=30d"], "--older-than"),
        (["stauts"], "invoke status"),
        (["--help", "clenup"], "invoke cleanup"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(words: list[str], meant: str) -> None:
    assert f"did you mean: invoke {meant.removeprefix('invoke ')}" in refused(*words).replace(
        "cleanup --", "--"
    )


@pytest.mark.parametrize("flag", ["-w", "-e", "-p", "--echo", "--warn-only", "-c"])
def test_a_flag_of_invoke_itself_is_no_flag_of_a_task(flag: str) -> None:
    assert f"invoke up has no flag {flag}" in refused("up", flag)


@pytest.mark.parametrize(
    ("task", "word", "takes"),
    [
        ("cleanup", "--wait=abc", "seconds"),
        ("cleanup", "--wait=-5", "seconds"),
        ("cleanup", "--wait=", "seconds"),
        ("up", "--timeout=nan", "seconds"),
        ("up", "--timeout=inf", "seconds"),
        ("up", "--timeout=1e9", "seconds"),
        ("cleanup", "--older-than=99999999999999d", "an age"),
        ("cleanup", "--older-than=30", "an age"),
        ("cleanup", "--run-ids=", "ids with commas between"),
        ("cleanup", "--run-ids=,", "ids with commas between"),
        ("cleanup", "--run-ids= ", "ids with commas between"),
        ("cleanup", "--run-ids=a,,b", "ids with commas between"),
        ("cleanup", "--run-ids=a b", "ids with commas between"),
        ("cleanup", "--run-ids=\udcff", "ids with commas between"),
        ("cleanup", "--experiment-ids=", "numbers with commas between"),
        ("cleanup", "--experiment-ids=12345678901234567890123", "numbers with commas between"),
        ("cleanup", "--experiment-ids=1,x", "numbers with commas between"),
        ("cleanup", "--only=", "words with commas between"),
        ("cleanup", "--only=runs,everything", "some of runs"),
        ("cleanup", "--ignore-reference=notes", "TABLE.COLUMN"),
        ("backup", "--keep=0", "a whole number, 1 or more"),
        ("backup", "--to=", "the place of backups"),
        ("usage", "--top=-1", "a whole number, 1 or more"),
        ("logs", "--tail=-3", "a whole number, 0 or more"),
        ("backup", "--to=gs://bucket/prefix", "the place of backups"),
        ("backup", "--to=S3://bucket/prefix", "the place of backups"),
        ("backup", "--to=file:///srv/backups", "the place of backups"),
        ("backup", "--to=~nobody-of-this-name/backups", "the place of backups"),
        ("restore", "--backup=s3://bucket", "a backup set"),
        ("restore", "--backup=https://host/set", "a backup set"),
        ("restore", "--backup=~nobody-of-this-name", "a backup set"),
        ("usage", "--html=~nobody-of-this-name/x", "a file"),
        ("up", "--set=port", "KEY=VALUE"),
        ("up", "--json=yes", "no value"),
    ],
)
def test_a_value_that_means_nothing_is_wrong_usage(task: str, word: str, takes: str) -> None:
    name, _, value = word.partition("=")
    text = refused(task, word)
    assert text.startswith(f"{name} takes {takes}")
    assert repr(value) in text or "everything" in text


def test_a_home_folder_is_put_in_where_no_shell_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert commandline._request(verbs.Backup, {"to": "~/sets"}).to == "/home/ada/sets"
    assert commandline._request(verbs.Restore, {"backup": "~/sets/latest"}).backup == "/home/ada/sets/latest"
    assert commandline._request(verbs.Render, {"output": "~"}).output == "/home/ada"
    assert commandline._request(verbs.Backup, {"to": "s3://sets/~/"}).to == "s3://sets/~/"
    monkeypatch.setenv(flags.BACKUPS, "~/elsewhere")
    assert commandline._request(verbs.Backup, {}).to == "/home/ada/elsewhere"


def test_a_flag_that_is_given_twice_or_lacks_its_value_is_named() -> None:
    assert "--wait was given 2 times" in refused("cleanup", "--wait=1", "--wait=2")
    assert "--stack takes the name of a stack, and nothing follows it" in refused("up", "--stack")
    assert "restore needs --backup=SET" in refused("restore", "--yes")
    assert "did you mean: invoke up --stack=quickstart" in refused("up", "quickstart")
    assert "did you mean: invoke upgrade --to=3.17.2" in refused("upgrade", "3.17.2")


OF_EITHER = [
    name
    for name, request_type in TASKS.items()
    if {"stack", "backend-store-uri"} <= {f.name for f in request_type.verb.flags}
]


@pytest.mark.parametrize("name", OF_EITHER)
@pytest.mark.parametrize("stack", ["--stack=quickstart", "--stack=local", "-s local"])
def test_a_stack_and_a_database_of_no_stack_are_refused_together(name: str, stack: str) -> None:
    needed = [f"--{flag.name}=x" for flag in TASKS[name].verb.flags if flag.required]
    database = "--backend-store-uri=sqlite:////x.db"
    assert "--backend-store-uri and --stack name two things" in refused(
        name, *stack.split(), database, *needed
    )
    check(name, database, *needed)
    check(name, *stack.split(), *needed)


def test_every_verb_that_works_on_data_works_on_either() -> None:
    assert set(OF_EITHER) == {"cleanup", "usage", "migrate", "backup", "restore"}


@pytest.mark.parametrize("request_type", BESIDE, ids=lambda request_type: request_type.verb.name)
def test_beside_the_data_the_request_is_what_the_task_made(request_type: type[Request]) -> None:
    asked = {}
    for flag in request_type.verb.beside_data():
        sample = {
            "SECONDS": "7",
            "N": "3",
            "AGE": "2d",
            "IDS": "1,2",
            "KINDS": ",".join(flag.choices),
            "TABLE.COLUMN": "a.b",
            "KEY=VALUE": "a=b",
            "PORT": "5557",
            "URI": "http://some text, 'quoted'",
        }.get(flag.kind.metavar, "some text, 'quoted'\n\udcff")
        asked[flag.attribute] = arguments.parsed(
            flag, True if flag.switch else [sample] if flag.repeatable else sample
        )
    request = request_type(**asked)
    dash, *module, text = request.argv()
    assert (dash, tuple(module)) == ("-m", request_type.verb.module)
    assert arguments.read([text], request_type) == request


def test_the_tracking_servers_variables_count_beside_the_data_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:////of-somebody.db")
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "/of-somebody")
    assert commandline._request(verbs.Backup, {"stack": None}).backend_store_uri == ""
    assert arguments.read(["{}"], verbs.Backup).backend_store_uri == "sqlite:////of-somebody.db"
    assert arguments.read([], verbs.Backup).artifacts_destination == "/of-somebody"
    assert arguments.read(["--artifacts-destination="], verbs.Backup).artifacts_destination == ""


def test_our_own_variables_count_where_the_flag_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(flags.BACKUPS, "/elsewhere")
    assert commandline._request(verbs.Backup, {}).to == "/elsewhere"
    assert commandline._request(verbs.Backup, {"to": "backups"}).to == "backups"
    assert arguments.read(["{}"], verbs.Backup).to == "backups"


def odd() -> st.SearchStrategy[str]:
    """Texts that nobody meant."""
    known = ["", " ", ",", "-1", "nan", "inf", "1e309", "٣", "0x1", "9" * 30, "a\nb", "\x1b[31m"]
    known += ["\udcff", "{}", "--", "="]
    return st.one_of(st.sampled_from(known), st.text(max_size=12))


def outcome(call: Callable[[], object]) -> int:
    """The exit code that a call leads to."""
    try:
        call()
    except UsageError as error:
        return error.exit_code
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(TASKS)), st.data())
def test_whatever_is_typed_is_read_or_refused(name: str, data: st.DataObject) -> None:
    own = st.sampled_from([*(flag.name for flag in TASKS[name].verb.flags), "dry"])
    flag = st.builds(lambda name, text: f"--{name}={text}", own, odd())
    words = data.draw(st.lists(st.one_of(odd(), flag)))
    assert outcome(lambda: check(name, *words)) in {0, 2}


@pytest.mark.parametrize(
    "text", ['{"run_ids": []}', '{"wait": "abc"}', '{"yes": "no"}', '{"stak": "x"}', "{1}", '{"keep": null}']
)
def test_a_request_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        arguments.read([text], verbs.Cleanup)


def test_a_request_is_frozen_and_may_be_had_with_other_values() -> None:
    request = verbs.Restore(backup="/set", wait=600)
    with pytest.raises(AttributeError):
        request.wait = 1  # type: ignore[misc]
    assert request.but(yes=True) == verbs.Restore(backup="/set", wait=600, yes=True)
    assert arguments.read(request.argv()[3:], verbs.Restore) == request


def test_what_runs_beside_the_data_is_whole_inside_the_image(tmp_path: Path) -> None:
    catalogue.assemble(catalogue.image("mlflow"), tmp_path / "context")
    for request in BESIDE:
        answer = subprocess.run(
            [sys.executable, "-m", *request.verb.module, "--help"],
            cwd=tmp_path / "context" / "app",
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        assert request.verb.help in answer.stdout


@settings(max_examples=100, deadline=None)
@example(verbs.Cleanup, ["{"])
@example(verbs.Cleanup, ["[]"])
@given(st.sampled_from(BESIDE), st.lists(odd(), max_size=3))
def test_whatever_is_typed_beside_the_data_is_read_or_refused(
    request_type: type[Request], words: list[str]
) -> None:
    assert outcome(lambda: arguments.read(words, request_type)) in {0, 2}


@settings(max_examples=100, deadline=None)
@given(st.floats(), st.integers())
def test_seconds_and_counts_are_what_a_clock_and_a_list_can_do(seconds: float, count: int) -> None:
    for text, parse in ((str(seconds), values.parse_seconds), (str(count), values.whole(1))):
        with contextlib.suppress(ValueError):
            assert 0 <= parse(text) <= values.MOST_SECONDS


def test_the_list_of_tasks_needs_no_heavy_library() -> None:
    heavy = ("mlflow", "sqlalchemy", "pydantic", "rich", "jinja2", "docker", "boto3")
    code = f"import sys, tasks; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_tasks_are_a_collection_of_invoke() -> None:
    assert isinstance(tasks.namespace, Collection)
