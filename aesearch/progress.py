"""How far a long step has come: a bar on a terminal, lines of JSON for programs, else nothing."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

Item = TypeVar("Item")
EVERY = 0.5  # seconds from one line of JSON to the next
BAR, AS_JSON = "bar", "json"
form = ContextVar("form", default=BAR)  # how progress is told: bar, or json
listening = ContextVar("listening", default=False)  # whether steps that are not told to be quiet are shown


class Plan:
    """The steps of a whole that are still to come, each with its work in the units of the step that takes longest."""

    def __init__(self, steps: dict[str, float]) -> None:
        self.to_come = steps
        self.names = list(steps)

    def left_after(self, doing: str, seconds_left: float | None, a_unit: float | None) -> float | None:
        """Seconds of the whole that are left, as far as they can be told from how long this step takes."""
        if doing not in self.names:
            return None
        later = sum(self.to_come[name] for name in self.names[self.names.index(doing) + 1 :])
        if seconds_left is None or (later and a_unit is None):
            return None
        return seconds_left + later * (a_unit or 0.0)


_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)


@contextlib.contextmanager
def plan(steps: dict[str, float]) -> Iterator[None]:
    """Name the steps of a whole, in order, and the work of each, so that the time left for all of it can be told.

    A step's work is in units of one training image; while a step of another kind runs, as reading, it is not known how
    long such a unit takes, and the time left is not told.
    """
    token = _plan.set(Plan(steps))
    try:
        yield
    finally:
        _plan.reset(token)


def settled(name: str, work: float) -> None:
    """Only now is it known how much work a planned step is."""
    if (whole := _plan.get()) is not None and name in whole.to_come:
        whole.to_come[name] = work


@contextlib.contextmanager
def heard(progress: bool) -> Iterator[None]:
    """Show the steps within that have no switch of their own, if there is progress to be shown."""
    token = listening.set(progress)
    try:
        yield
    finally:
        listening.reset(token)


class Step:
    """One step: how much of it is done, told as it goes.

    Attributes
    ----------
    done, total : int, int or None
    """

    def __init__(self, doing: str, total: int | None, unit: str, done: int) -> None:
        self.doing, self.total, self.unit, self.done = doing, total, unit, done
        self._begun_at, self._began, self._facts = done, time.monotonic(), {}  # type: int, float, dict[str, Any]

    def update(self, count: int = 1) -> None:
        """So much more is done."""
        self.done += count

    def say(self, **facts: Any) -> None:
        """What else is known by now: an epoch, a loss."""
        self._facts = facts

    def reset(self) -> None:
        """It starts again."""
        self.done = self._begun_at = 0
        self._began = time.monotonic()

    def close(self) -> None:
        """It has ended."""

    @property
    def seconds_left(self) -> float | None:
        """Of this step, by its mean speed."""
        fresh = self.done - self._begun_at
        if self.total is None or fresh <= 0:
            return None
        return (self.total - self.done) * (time.monotonic() - self._began) / fresh

    @property
    def whole_seconds_left(self) -> float | None:
        """Of all steps that were planned; without a plan, of this one."""
        whole = _plan.get()
        if whole is None:
            return self.seconds_left
        fresh, work = self.done - self._begun_at, whole.to_come.get(self.doing)
        a_unit = None
        if work and self.total and fresh > 0:
            a_unit = (time.monotonic() - self._began) / fresh * self.total / work
        return whole.left_after(self.doing, self.seconds_left, a_unit)


class _Bar(Step):
    """On a terminal."""

    def __init__(self, doing: str, total: int | None, unit: str, done: int) -> None:
        from tqdm.auto import tqdm

        super().__init__(doing, total, unit, done)
        self._bar = tqdm(total=total, initial=done, desc=doing, unit=unit, unit_scale=True)

    def update(self, count: int = 1) -> None:
        super().update(count)
        if self._bar.update(count):  # it was drawn
            self._tell()

    def say(self, **facts: Any) -> None:
        super().say(**facts)
        self._tell()

    def _tell(self) -> None:
        facts = dict(self._facts)
        if _plan.get() is not None and (left := self.whole_seconds_left) is not None:
            facts["all_left"] = self._bar.format_interval(left)
        self._bar.set_postfix(facts, refresh=False)

    def reset(self) -> None:
        super().reset()
        self._bar.reset()

    def close(self) -> None:
        self._bar.close()


class _Lines(Step):
    """For programs, on standard error."""

    def __init__(self, doing: str, total: int | None, unit: str, done: int) -> None:
        super().__init__(doing, total, unit, done)
        self._told = 0.0
        self._tell("begin")

    def update(self, count: int = 1) -> None:
        super().update(count)
        if time.monotonic() - self._told >= EVERY:
            self._tell("progress")

    def close(self) -> None:
        self._tell("end")

    def _tell(self, event: str) -> None:
        self._told = time.monotonic()
        whole = _plan.get()
        line = {
            "event": event,
            "step": self.doing,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "seconds": _short(self._told - self._began),
            "step_seconds_left": _short(self.seconds_left),
            "seconds_left": _short(self.whole_seconds_left),
            "steps": whole.names if whole else [self.doing],
            **self._facts,
        }
        print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


@contextlib.contextmanager
def step(
    doing: str, total: int | None = None, *, unit: str = "img", done: int = 0, progress: bool | None = None
) -> Iterator[Step]:
    """Tell how far a step has come.

    Parameters
    ----------
    doing : str
        Its name.
    total : int, optional
        How much there is to do, if that is known.
    done : int
        How much of it an earlier run has done.
    progress : bool, optional
        Whether to tell it; by default as `heard` says. A bar is for terminals alone.
    """
    told = listening.get() if progress is None else progress
    kind: type[Step] = Step
    if told and form.get() == AS_JSON:
        kind = _Lines
    elif told and sys.stderr.isatty():
        kind = _Bar
    going = kind(doing, total, unit, done)
    try:
        yield going
    finally:
        going.close()


def counted(items: Iterable[Item], doing: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Pass things on, and tell how many there were by now."""
    with step(doing, total, unit=unit) as going:
        for item in items:
            yield item
            going.update()
