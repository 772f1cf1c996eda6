"""A command's options as a dataclass: declared once, shared by commands, handed over as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R")


def gathers_options(command: Callable[..., R]) -> Callable[..., R]:
    """Let a command take dataclasses of options.

    Each parameter whose type is a dataclass becomes its fields, in their order: a field is annotated
    as typer wants a parameter to be, and has a default. Two groups of one command must not share a
    field's name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if name != "return" and is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        inner = get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=inner[field.name],
            )
            for field in fields(groups[name])
        ]

    @wraps(command)
    def gathered(**given: Any) -> R:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**given, **made)

    ordered = sorted(parameters, key=lambda parameter: parameter.kind)
    gathered.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]  # inspect reads it
    gathered.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    return gathered


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    if field.default is MISSING:
        raise TypeError(f"{field.name}: an option of a group needs a default")
    return field.default
