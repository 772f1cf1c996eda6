"""The settings that may change while a camera runs, for its file, the REST API and the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from stream.config import Config, Fraction, load_config, parse_config
from stream.config_live import Section

Region = tuple[Fraction, Fraction, Fraction, Fraction]
"""x, y, width and height as fractions of the upright picture."""
Value = bool | int | float | str | tuple[Region, ...]
"""The value of one setting."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The place of a LiveSettings field in Config, and the requirements of its change."""

    section: str = ""
    """Section of Config that holds the value; empty if Config does not hold it."""
    key: str = ""
    """The value's name in that section."""
    loads: bool = False
    """Whether a change has to load other stages; any other change holds from the next frame."""


class LiveSettings(Section):
    """Changes of settings while the camera runs; None leaves a setting as it is."""

    # Not strict, because it is the body of a REST call: JSON has no tuples, and numbers may come as text.
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
        """All settings as they hold now."""
        values = {
            name: getattr(getattr(config, setting.section), setting.key)
            for name, setting in _SETTINGS.items()
            if setting.section
        }
        return cls(**values, preset=preset, passing=passing)

    @property
    def loads(self) -> bool:
        """Whether the changes have to load other stages."""
        return any(_SETTINGS[name].loads for name in self.given())

    def without_loading(self) -> Self:
        """Only those changes that have to load nothing."""
        return self.model_copy(update={name: None for name, setting in _SETTINGS.items() if setting.loads})

    def given(self) -> dict[str, Value]:
        """The values that are to change, by the setting's name."""
        return {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}

    def overrides(self) -> dict[str, Value]:
        """The values that are to change in Config, by SECTION.KEY."""
        return {
            f"{setting.section}.{setting.key}": value
            for name, value in self.given().items()
            if (setting := _SETTINGS[name]).section
        }

    def applied(self, config: Config, preset: str) -> tuple[Config, str]:
        """`config` and `preset` with these changes. Raises ConfigError for a value that is not allowed."""
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
    """`config`, which is the preset `old` with the user's changes, with the preset `new` in place of `old`.

    The user's changes stay, and so do the sections that concern the source and the sinks.
    """
    sections = {}
    for name in ("detect", "track", "select", "restore", "stabilise", "compose"):
        mine, before = getattr(config, name), getattr(old, name)
        own = {key for key in type(mine).model_fields if getattr(mine, key) != getattr(before, key)}
        sections[name] = getattr(new, name).model_copy(update={key: getattr(mine, key) for key in own})
    return config.model_copy(update=sections)
