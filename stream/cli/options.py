"""Shared parts of the commands: options as dataclasses, `--debug`, and lines on stderr."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Result = TypeVar("Result")


def gathers_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Let a typer command take dataclasses of options.

    A parameter whose type is a dataclass is replaced by the dataclass's fields, in their order. Each
    field is annotated as typer wants a parameter to be, and has a default. Two dataclasses of one
    command must not share a field's name. Raises TypeError for a field without a default.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Callable[..., Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    names: dict[str, list[str]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        members = [parameter.replace(annotation=hints[name])]
        if name in groups:
            members = _members(groups[name])
            names[name] = [member.name for member in members]
        parameters += [member.replace(kind=inspect.Parameter.KEYWORD_ONLY) for member in members]

    @wraps(command)
    def gathered(**given: Any) -> Result:
        made = {
            name: group(**{member: given.pop(member) for member in names[name]})
            for name, group in groups.items()
        }
        return command(**given, **made)

    gathered.__dict__["__signature__"] = inspect.Signature(parameters)  # what typer reads
    gathered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gathered


def _members(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    if field.default is MISSING:
        raise TypeError(f"{field.name}: an option in a dataclass needs a default")
    return field.default


class Tracebacks:
    """Whether errors are shown with their traceback: `--debug`, an option of every command."""

    wanted = False
    """Set once the command line has been read."""

    @classmethod
    def want(cls, given: bool) -> bool:
        """Remember that the option was given, for whichever command it was given to."""
        cls.wanted = cls.wanted or given
        return given


Debug = Annotated[
    bool,
    typer.Option("--debug", callback=Tracebacks.want, help="Print tracebacks.", rich_help_panel="Output"),
]
"""The option `--debug` of a command whose help groups its options under headings."""
DebugAlone = Annotated[bool, typer.Option("--debug", callback=Tracebacks.want, help="Print tracebacks.")]
"""The option `--debug` of a command whose help has no headings."""


def complain(text: str) -> None:
    """Print a text as one line on stderr."""
    tell(" ".join(text.split()))


def tell(text: str, end: str = "\n") -> None:
    """Print a text on stderr, if anybody can read it: the terminal may be closed."""
    with suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)
