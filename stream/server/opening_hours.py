"""Schedules: time windows of the week in which a camera runs, such as "mon-fri 07:00-19:00"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, time, timedelta

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME_WINDOW = re.compile(r"(?:([a-z,-]+) +)?(\d{1,2}):(\d\d) *- *(\d{1,2}):(\d\d)")


def check_schedule(schedule: tuple[str, ...]) -> tuple[str, ...]:
    """The schedule itself; raises ValueError if a time window of it cannot be parsed."""
    for text in schedule:
        _parse_window(text)
    return schedule


def is_open(schedule: Sequence[str], now: datetime) -> bool:
    """Whether a schedule lets a camera run at `now`; an empty one always does."""
    return not schedule or any(begin <= now < end for begin, end in _time_windows(schedule, now))


def next_opening(schedule: Sequence[str], now: datetime) -> datetime:
    """When the next time window of a schedule begins; `now` if the schedule is empty."""
    return min((begin for begin, _ in _time_windows(schedule, now) if begin > now), default=now)


def _time_windows(schedule: Sequence[str], now: datetime) -> list[tuple[datetime, datetime]]:
    """Begin and end of every time window, from yesterday to a week after `now`."""
    found = []
    for days, begin_min, end_min in map(_parse_window, schedule):
        for ahead in range(-1, 8):
            day = datetime.combine(now.date() + timedelta(ahead), time(), now.tzinfo)
            if day.weekday() in days:
                end = end_min if end_min > begin_min else end_min + 1440  # over midnight
                found.append((day + timedelta(minutes=begin_min), day + timedelta(minutes=end)))
    return found


def _parse_window(text: str) -> tuple[set[int], int, int]:
    """Weekdays (0: Monday) of a time window, and its begin and end in minutes of the day. ValueError."""
    match = _TIME_WINDOW.fullmatch(text.strip().lower())
    if not match:
        raise ValueError(f"{text!r} is no window of time; write such as 'mon-fri 07:00-19:00'")
    days: set[int] = set()
    for part in (match[1] or "mon-sun").split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"{part!r} is no weekday; write {', '.join(_DAYS)} or such as mon-fri")
        low, high = _DAYS.index(first), _DAYS.index(last or first)
        days |= {day % 7 for day in range(low, high + 1 if high >= low else high + 8)}
    hours, minutes = [int(match[2]), int(match[4])], [int(match[3]), int(match[5])]
    begin, end = (hour * 60 + minute for hour, minute in zip(hours, minutes, strict=True))
    if max(minutes) > 59 or begin >= 1440 or end > 1440 or begin == end:
        raise ValueError(f"{text!r} is no window of time; hours go from 00:00 to 24:00")
    return days, begin, end
