"""``ports.Timers`` on a fake host."""

from __future__ import annotations

from collections.abc import Sequence

from vmhost.model.errors import Absent, AlreadyThere, UsageError
from vmhost.model.nightsteps import FILES, MARK, UNITS, ObservedTimers, TimerFile
from vmhost.testing.machine import Machine
from vmhost.testing.world import World


class FakeTimers:
    """What wakes the night's work of a fake host: files of its world, and the timer that runs by them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def state(self) -> ObservedTimers:
        with self._machine.at_work() as world:
            ours = tuple(TimerFile(path, world.timer_files[path]) for path in FILES if _is_ours(world, path))
            foreign = tuple(path for path in FILES if path in world.timer_files and not _is_ours(world, path))
            return ObservedTimers(world.systemd, True, ours, foreign, world.timer_boots, world.timer)

    def check(self, files: Sequence[TimerFile]) -> None:
        for file in files:
            if "[Install]" not in file.text and "[Service]" not in file.text:
                raise UsageError(f"systemd does not take the unit: {file.path}", hint="vmhost nightly units")

    def put(self, file: TimerFile) -> None:
        with self._machine.at_work(changing=True) as world:
            _check_ours(world, file.path)
            world.timer_files[file.path] = file.text

    def drop(self, path: str) -> None:
        with self._machine.at_work(changing=True) as world:
            _check_ours(world, path)
            if world.timer_files.pop(path, None) is None:
                raise Absent("cannot remove: no such file", subject=path)

    def start(self, timer: str, *, boot: bool = True, now: bool = True) -> None:
        with self._machine.at_work(changing=True) as world:
            if f"{UNITS}/{timer}" not in world.timer_files:
                raise Absent("there is no such timer", subject=timer)
            world.timer_boots, world.timer = world.timer_boots or boot, world.timer or now

    def stop(self, timer: str, *, boot: bool = True, now: bool = True) -> None:
        with self._machine.at_work(changing=True) as world:
            if not (f"{UNITS}/{timer}" in world.timer_files or world.timer_boots or world.timer):
                raise Absent("there is no such timer", subject=timer)
            world.timer_boots, world.timer = world.timer_boots and not boot, world.timer and not now


def _is_ours(world: World, path: str) -> bool:
    return world.timer_files.get(path, "").startswith(f"{MARK}\n")


def _check_ours(world: World, path: str) -> None:
    if path in world.timer_files and not _is_ours(world, path):
        raise AlreadyThere("it is not vmhost's", subject=path)
