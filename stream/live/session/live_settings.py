"""The settings that may change while a camera runs: one model for the file, the REST body and the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from stream.config import Config, Fraction, load_config, parse_config
from stream.config_live import Section

Region = tuple[Fraction, Fraction, Fraction, Fraction]
"""x, y, width, height as fractions of the upright picture."""
Value = bool | int | float | str | tuple[Region, ...]
"""Of one setting."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Metadata of a field of LiveSettings."""

    section: str = ""
    """Section of Config that holds the value; empty: Config does not hold it."""
    key: str = ""
    """The value's name in that section."""
    loads: bool = False
    """Whether a change has to load other stages. Any other change holds from the next frame."""


class LiveSettings(Section):
    """What is to change while the camera runs; what is left out stays."""

    # It is the body of a REST call: JSON has no tuples, and numbers may be written as text.
    model_config = ConfigDict(strict=False)

    strength: Annotated[Fraction | None, Setting("restore", "strength")] = None
    interval: Annotated[int | None, Field(ge=1, le=30), Setting("restore", "interval")] = None
    stabilise: Annotated[Fraction | None, Setting("stabilise", "strength")] = None
    model: Annotated[str | None, Setting("restore", "model", loads=True)] = None
    preset: Annotated[str | None, Setting(loads=True)] = None
    include: Annotated[tuple[Region, ...] | None, Setting("select", "include")] = None
    exclude: Annotated[tuple[Region, ...] | None, Setting("select", "exclude")] = None
    passing: Annotated[bool | None, Setting()] = None

    @classmethod
    def of(cls, config: Config, preset: str, passing: bool) -> Self:
        """Every setting as it is now."""
        values = {
            name: getattr(getattr(config, setting.section), setting.key)
            for name, setting in _SETTINGS.items()
            if setting.section
        }
        return cls(**values, preset=preset, passing=passing)

    @property
    def loads(self) -> bool:
        """Whether other stages have to be loaded for it."""
        return any(_SETTINGS[name].loads for name in self.given())

    def at_once(self) -> Self:
        """Without what has to be loaded."""
        return self.model_copy(update={name: None for name, setting in _SETTINGS.items() if setting.loads})

    def given(self) -> dict[str, Value]:
        """What is to change, by the setting's name."""
        return {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}

    def overrides(self) -> dict[str, Value]:
        """What is to change in Config, by section.key."""
        return {
            f"{setting.section}.{setting.key}": value
            for name, value in self.given().items()
            if (setting := _SETTINGS[name]).section
        }

    def applied(self, config: Config, preset: str) -> tuple[Config, str]:
        """Settings and preset with these changes. Raises ConfigError."""
        sections = config.model_dump()
        for name, value in self.given().items():
            if (setting := _SETTINGS[name]).section:
                sections[setting.section][setting.key] = value
        changed = parse_config(sections)
        if self.preset is None:
            return changed, preset
        return _rebased(changed, load_config(preset), load_config(self.preset)), self.preset


_SETTINGS = {
    name: next(item for item in field.metadata if isinstance(item, Setting))
    for name, field in LiveSettings.model_fields.items()
}


def _rebased(config: Config, old: Config, new: Config) -> Config:
    """`config`, which was made of preset `old` and changes of the user's, on preset `new`.

    What the user had changed stays changed. How the source is read and where it goes stay too.
    """
    sections = {}
    for name in ("detect", "track", "select", "restore", "stabilise", "compose"):
        mine, before = getattr(config, name), getattr(old, name)
        own = {key for key in type(mine).model_fields if getattr(mine, key) != getattr(before, key)}
        sections[name] = getattr(new, name).model_copy(update={key: getattr(mine, key) for key in own})
    return config.model_copy(update=sections)
