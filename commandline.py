"""Invoke's side of the verbs: tasks made from `verbs.py`, and a command line that is checked before anything runs.

Invoke itself answers a mistyped task with exit code 1, takes ``--dry`` for a flag of its own that changes nothing about
our tasks, and hands on whatever text a flag has. So tasks.py has its command line read once with Invoke's own parser,
before Invoke does.
"""

from __future__ import annotations

import difflib
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.parser.parser import Parser
from invoke.tasks import Task

import arguments
from console import UsageError, unread, user_errors
from process.proxies import spare_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from flags import Flag
    from verbs import Request, Verb

R = TypeVar("R", bound="Request")

# Flags of Invoke that mean something after a task. Its -d is none of them: whoever types that may mean --dry-run.
KEPT = (Argument(names=("help", "h"), optional=True), Argument(name="debug", kind=bool))
WITHOUT_MEANING = ("dry", "warn-only", "hide", "echo", "pty", "prompt-for-sudo-password", "command-timeout")


class VerbTask(Task[Any]):
    """A task whose flags are those of its verb."""

    verb: Verb

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The flags; none may be given without its name, for Invoke would take ``--help`` for its value."""
        del ignore_unknown_help
        return [_argument(flag) for flag in self.verb.of_task()]


def _argument(flag: Flag) -> Argument:
    kind = bool if flag.switch else list if flag.repeatable else str
    return Argument(
        names=(flag.name, flag.short) if flag.short else (flag.name,),
        kind=kind,
        help=flag.explained,
        attr_name=flag.attribute if "-" in flag.name else None,
    )


def task(request: type[R]) -> Callable[[Callable[[R], None]], VerbTask]:
    """Make a function of a request the task of its verb; ``invoke --debug TASK`` shows the traceback of an error."""
    verb = request.verb

    def made(does: Callable[[R], None]) -> VerbTask:
        def body(_: Any, **given: Any) -> None:
            with user_errors(debug=logging.getLogger("invoke").isEnabledFor(logging.DEBUG)):
                does(_request(request, given))

        body.__name__ = verb.name.replace("-", "_")
        body.__doc__ = f"{verb.group}: {verb.help}"
        made = VerbTask(body, name=verb.name)
        made.verb = verb
        return made

    return made


def _request(request: type[R], given: dict[str, Any]) -> R:
    """The request of what Invoke parsed, in which None, False and [] stand for what was not given.

    Raises:
        UsageError: a value means nothing, or two flags name what there is one of.
    """
    verb = request.verb
    typed = {
        name: arguments.parsed(verb.flag(name), value)
        for name, value in given.items()
        if value is not None and value is not False and value != []
    }
    for flag in map(verb.flag, typed):
        if flag.instead_of in typed:
            raise UsageError(
                f"--{flag.name} and --{flag.instead_of} name two things, and invoke {verb.name} works on one",
                f"leave out --{flag.instead_of}, or leave out --{flag.name}",
            )
    return request(**{**arguments.from_variables(verb, server=False), **typed})


def namespace(tasks: Iterable[VerbTask], requests: dict[str, type[Request]]) -> Collection:
    """Return the collection of tasks; before that, check the command line that Invoke is about to read."""
    made = Collection(*tasks)
    if _is_invoke(sys.argv[0]):
        sys.excepthook = _unless_unread
        spare_loopback()
        with user_errors():
            check(sys.argv[1:], made, requests)
    return made


def _unless_unread(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, but not where ``invoke --list | head`` has read enough."""
    if not (issubclass(kind, BrokenPipeError) and unread()):
        sys.__excepthook__(kind, error, trace)


def _is_invoke(program: str) -> bool:
    path = Path(program)
    return path.stem in {"invoke", "inv"} or path.parts[-2:] == ("invoke", "__main__.py")


def check(words: Sequence[str], tasks: Collection, requests: dict[str, type[Request]]) -> None:
    """Read a command line as Invoke will, and print the help that it asks for.

    Raises:
        UsageError: it means nothing.
        SystemExit: 0, after the help of a task.
    """
    from invoke.main import program

    core = Parser(initial=program.initial_context, ignore_unknown=True).parse_argv(list(words))
    given = core[0].args
    if given.complete.value:
        return
    for name in WITHOUT_MEANING:
        if given[name].got_value and given[name].value:
            _refuse_core(f"--{name}", requests, core.unparsed)
    initial = ParserContext(args=KEPT)
    try:
        parsed = Parser(tasks.to_contexts(), initial).parse_argv(core.unparsed)
    except ParseError as error:
        _mistyped(error, core.unparsed, requests)
    wanted = given.help.value or parsed[0].args.help.value
    if isinstance(wanted, str):
        if wanted not in tasks.task_names:
            raise _unknown_task(wanted, requests)
        print(help_of(requests[wanted].verb))
        raise SystemExit(0)
    for context in parsed[1:]:
        _request(requests[str(context.name)], context.as_kwargs)


def help_of(verb: Verb) -> str:
    """What ``invoke --help TASK`` prints: usage, what it does, and each flag with its default."""
    own = verb.of_task()
    needed = "".join(f" {flag.spelled}" for flag in own if flag.required)
    left = [f"{f'-{flag.short}, ' if flag.short else '    '}{flag.spelled}" for flag in own]
    width = min(max((len(text) for text in left), default=0), 36)
    lines = [f"usage: invoke {verb.name}{needed}{' [--flags]' if own else ''}", "", verb.help]
    if own:
        lines.append("")
    for text, flag in zip(left, own, strict=True):
        first, *rest = _wrapped(flag.explained, 100 - width)
        lines.append(
            f"  {text:<{width}}  {first}" if len(text) <= width else f"  {text}\n  {'':<{width}}  {first}"
        )
        lines += [f"  {'':<{width}}  {line}" for line in rest]
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def _without_its_flag(verb: Verb) -> str | None:
    """The flag whose value somebody gave without it: the one that is required, or the stack."""
    names = [flag.name for flag in verb.of_task() if flag.required or flag.name == "stack"]
    return next(iter(names), None)


def _refuse_core(word: str, requests: dict[str, type[Request]], rest: Sequence[str]) -> NoReturn:
    verb = next((requests[name].verb for name in rest if name in requests), None)
    meant = _near_flag(word, verb) if verb else None
    raise UsageError(
        f"{word} is a flag of Invoke that changes nothing about these tasks",
        *([f"did you mean: invoke {verb.name} {meant}"] if verb and meant else []),
    )


def _near_flag(word: str, verb: Verb) -> str | None:
    """The flag of a verb that was meant."""
    names = [f"--{flag.name}" for flag in verb.of_task()]
    if re.fullmatch(r"-[A-Za-z]", word):
        return next((name for name in names if name[2] == word[1]), None)
    longer = [name for name in names if len(word) > 3 and name.startswith(word)]
    return next(iter([*longer, *difflib.get_close_matches(word, names, n=1)]), None)


def _unknown_task(word: str, requests: dict[str, type[Request]]) -> UsageError:
    near = difflib.get_close_matches(word, [name for name in requests if requests[name].verb.group], n=1)
    return UsageError(
        f"unknown task '{word}'",
        *([f"did you mean: invoke {near[0]}"] if near else []),
        "to see the tasks there are: invoke --list",
    )


def _mistyped(error: ParseError, words: Sequence[str], requests: dict[str, type[Request]]) -> NoReturn:
    """Say it in our words; what Invoke says stands in its parser/parser.py."""
    name = error.context.name if error.context else None
    verb = requests[name].verb if name else None
    said = str(error)
    if match := re.fullmatch(r"No idea what (['\"])(.*)\1 is!", said, re.DOTALL):
        raise _no_idea(match[2], words, verb, requests)
    if (match := re.match(r"Flag <Argument: (\S+)", said)) and verb:
        flag = verb.flag(match[1].split(" ")[0].replace("-", "_"))
        raise UsageError(
            f"--{flag.name} takes {flag.kind.takes}, and nothing follows it", f"type: {flag.spelled}"
        )
    raise UsageError(said, "see: invoke --help")


def _no_idea(
    word: str, words: Sequence[str], verb: Verb | None, requests: dict[str, type[Request]]
) -> UsageError:
    if word.startswith("-"):
        where = f"invoke {verb.name}" if verb else "invoke"
        near = _near_flag(word, verb) if verb else None
        return UsageError(
            f"{where} has no flag {word}",
            *([f"did you mean: {where} {near}"] if near else []),
            f"see: invoke --help{f' {verb.name}' if verb else ''}",
        )
    for flag in verb.of_task() if verb else ():
        given = [argument for argument in words if argument.split("=")[0] == f"--{flag.name}"]
        if flag.switch and any(argument == f"--{flag.name}={word}" for argument in given):
            return UsageError(
                f"--{flag.name} takes no value, not '{word}'", f"type: --{flag.name}, or leave it out"
            )
        if len(given) > 1 and not flag.repeatable:
            return UsageError(f"--{flag.name} was given {len(given)} times", "give it once")
    unknown = _unknown_task(word, requests)
    if verb and len(unknown.hints) == 1 and (meant := _without_its_flag(verb)):
        return UsageError(
            unknown.message, f"did you mean: invoke {verb.name} --{meant}={word}", *unknown.hints
        )
    return unknown
