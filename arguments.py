"""The command line of what runs beside the data: a request as JSON, or the same flags as a person types them."""

from __future__ import annotations

import argparse  # the one parser: its flags are those of a request
import difflib
import json
import os
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from console import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flags import Flag
    from verbs import Request, Verb

R = TypeVar("R", bound="Request")


def read(words: Sequence[str], request: type[R]) -> R:
    """Return the request of a command line: one word that is JSON, or flags.

    What neither gives comes from the environment: a flag's own variable, or the tracking server's.

    Raises:
        UsageError: something in it means nothing.
        SystemExit: 0, after ``--help``.
    """
    verb = request.verb
    if len(words) == 1 and words[0].startswith("{"):
        return request(**{**from_variables(verb, server=True, own=False), **_from_json(verb, words[0])})
    typed = vars(_parser(verb).parse_args(words))
    given = {name: parsed(verb.flag(name), value) for name, value in typed.items()}
    return request(**{**from_variables(verb, server=True), **given})


def _from_json(verb: Verb, text: str) -> dict[str, Any]:
    try:
        given = dict(json.loads(text))
    except ValueError as error:
        raise UsageError(f"this is no request: {error}", f"see: {_prog(verb)} --help") from None
    for flag in verb.flags:
        if flag.attribute in given:
            value = given[flag.attribute]
            if isinstance(value, list):
                value = tuple(value)
            elif isinstance(flag.empty, float) and type(value) is int:
                value = float(value)
            if type(value) is not type(flag.empty) or value == ():  # an empty list would name all there is
                raise UsageError(f"--{flag.name} takes {flag.kind.takes}, not {value!r}")
            given[flag.attribute] = value
    return given


def parsed(flag: Flag, given: Any) -> Any:
    """Return the value of what a parser of a command line hands over: a text, texts, or True.

    Raises:
        UsageError: it means nothing.
    """
    if flag.switch:
        return bool(given)
    return tuple(flag.parse(text) for text in given) if flag.repeatable else flag.parse(given)


def choose(words: Sequence[str], requests: Sequence[type[R]]) -> R:
    """Return the request of a command line whose first word is a verb; see `read`.

    Raises:
        UsageError: there is no such verb, or as in `read`.
    """
    known = {request.verb.name: request for request in requests}
    if not words or words[0] not in known:
        near = difflib.get_close_matches(words[0], known, n=1) if words else []
        raise UsageError(
            f"unknown verb '{words[0]}'" if words else "which verb?",
            *([f"did you mean: {near[0]}"] if near else []),
            f"verbs: {', '.join(known)}",
        )
    return read(words[1:], known[words[0]])


def from_variables(
    verb: Verb, *, server: bool, own: bool = True, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return, by attribute, what environment variables say of flags.

    Args:
        verb: with its flags.
        server: the tracking server's variables count: this is a process beside the data.
        own: a flag's own variable counts.
        environment: where the variables are.

    Raises:
        UsageError: what one says means nothing.
    """
    given: dict[str, Any] = {}
    for flag in verb.flags:
        for name in (flag.variable if own else "", flag.server_variable if server else ""):
            if name and environment.get(name):
                given.setdefault(flag.attribute, flag.parse(environment[name]))
    return given


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as all of us do."""

    known: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`, with the flag that was meant."""
        word = message.rpartition(": ")[2].split("=")[0].split(" ")[0]
        near = difflib.get_close_matches(word, self.known, n=1) if word.startswith("-") else []
        raise UsageError(message, *([f"did you mean: {near[0]}"] if near else []), f"see: {self.prog} --help")


def _prog(verb: Verb) -> str:
    return " ".join(("python -m", *verb.module))


def _parser(verb: Verb) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_prog(verb), description=verb.help, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for flag in verb.beside_data():
        names = [f"-{flag.short}"] * bool(flag.short) + [f"--{flag.name}"]
        text = flag.explained.replace("%", "%%")
        if flag.server_variable:
            text += f" (default: ${flag.server_variable})"
        if flag.switch:
            parser.add_argument(*names, dest=flag.attribute, action="store_true", help=text)
        else:
            action = "append" if flag.repeatable else "store"
            parser.add_argument(*names, dest=flag.attribute, action=action, metavar=flag.metavar, help=text)
    parser.known = tuple(f"--{flag.name}" for flag in verb.beside_data())
    return parser
