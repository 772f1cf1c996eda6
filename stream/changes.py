"""What may change while a session runs."""

from __future__ import annotations

from dataclasses import dataclass

from stream.config import Config, load_config, parse_config


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to change while a session runs; None: stays as it is."""

    strength: float | None = None
    interval: int | None = None
    stabilise: float | None = None
    """Strength of the stabiliser."""
    model: str | None = None
    preset: str | None = None
    include: tuple[tuple[float, float, float, float], ...] | None = None
    exclude: tuple[tuple[float, float, float, float], ...] | None = None
    passing: bool | None = None
    """Whether frames go out as they came."""

    def applied(self, config: Config, preset: str) -> tuple[Config, str]:
        """Settings and preset with these changes. Raises ConfigError."""
        values = config.model_dump()
        for key in ("strength", "interval", "model"):
            if (value := getattr(self, key)) is not None:
                values["restore"][key] = value
        if self.stabilise is not None:
            values["stabilise"]["strength"] = self.stabilise
        for key in ("include", "exclude"):
            if (value := getattr(self, key)) is not None:
                values["select"][key] = value
        changed = parse_config(values)
        if self.preset is None:
            return changed, preset
        return _rebased(changed, load_config(preset), load_config(self.preset)), self.preset


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
