"""Whether a guest has gone on with what an operation gave it: who puts that back takes away what it has written since.

Why so: docs/decisions/0095.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vmhost.model.backupsteps import SwapFile
from vmhost.model.domains import RawDomain
from vmhost.model.errors import Absent, Refused
from vmhost.model.plan import Planned
from vmhost.model.snapsteps import KeepNvram, MakeOverlay, PutNvram
from vmhost.model.steps import CreateVolume, DefineDomain, Step
from vmhost.ports import Ports
from vmhost.render.parse.domain import parse_domain


@dataclass(frozen=True, slots=True)
class GoneOn:
    """What a guest has gone on with. ``stays``: for good; else it has only been started, and may be put back when it
    is off.
    """

    name: str
    text: str
    stays: bool

    @property
    def left(self) -> str:
        """What is left to do, as a command and its reason."""
        stop = "" if self.stays else f"vmhost guest stop {self.name}, then "
        return f"{stop}vmhost recover    # {self.text}"


@dataclass(frozen=True, slots=True)
class _Given:
    """A file that took the place of a disk of a guest that was there before; ``kept``: what the disk was, if it was
    renamed.
    """

    uuid: str
    name: str
    path: str
    kept: str = ""


def gone_on(steps: Sequence[Planned], ports: Ports, *, started: bool) -> GoneOn | None:
    """Return what a guest has gone on with, if these steps gave it other disks; None: all of them may be put back.

    It has once it has written to one of them. So it has, unless these steps ``started`` it just now, when it runs with
    them, when something else lies on them, and when it has written to UEFI's variables. Half of a restore that nobody
    has written to yet is not for good.

    :raises DriverError: it cannot be seen; then nothing may be put back.
    """
    given = [*_swapped_in(steps, ports), *_laid_on(steps)]
    if not given:
        return None
    name = given[0].name
    written = [one for one in given if _written(one, ports)]
    used = written or ([] if started else _in_use(given, steps, ports))
    if not used:
        return None
    paths = [one.path for one in given]
    missing = [do.path for do in (item.do for item in steps) if isinstance(do, SwapFile) and do.path not in paths]
    if missing and not written:
        return GoneOn(name, f"{name} runs with {' and '.join(paths)}, and without the others that were to come", False)
    text = f"{name} has gone on with {' and '.join(paths)}, so nothing is put back"
    if missing:
        text += f"; {' and '.join(missing)} is still what it was"
    if any(one.kept for one in given):
        text += f"; what its disks were is kept until vmhost backup confirm {name}"
    return GoneOn(name, text, True)


def written_disk(do: Step, steps: Sequence[Planned], ports: Ports) -> bool:
    """Whether a step made a disk for a guest that was there before, which has written to it since.

    :raises DriverError: it cannot be seen.
    """
    if not isinstance(do, CreateVolume) or do.backing:
        return False
    paths = {path for _, path in _disks_given(steps) if path.endswith(f"/{do.name}")}
    return any(ports.files.written(path) for path in paths)


def _swapped_in(steps: Sequence[Planned], ports: Ports) -> Iterator[_Given]:
    for do in (item.do for item in steps):
        if isinstance(do, SwapFile) and ports.repositories.swapped(do.path, do.kept):
            yield _Given(do.uuid, do.name, do.path, do.kept)


def _laid_on(steps: Sequence[Planned]) -> Iterator[_Given]:
    """Yield the overlays that a changed definition has for disks."""
    made = [item.do for item in steps]
    overlays = {do.path.rpartition("/")[2] for do in made if isinstance(do, MakeOverlay)}
    overlays |= {do.name for do in made if isinstance(do, CreateVolume) and do.backing}
    for do, path in _disks_given(steps):
        if path.rpartition("/")[2] in overlays:
            yield _Given(do.uuid, do.name, path)


def _disks_given(steps: Sequence[Planned]) -> Iterator[tuple[DefineDomain, str]]:
    """Yield the files of disks in definitions that replace others; a guest that is made goes with all that is its."""
    for item in steps:
        if isinstance(item.do, DefineDomain) and isinstance(item.undo, DefineDomain):
            for disk in parse_domain(item.do.xml).disks:
                yield item.do, disk.source


def _written(given: _Given, ports: Ports) -> bool:
    if given.kept:
        return ports.repositories.written(given.path, given.kept)
    return ports.files.written(given.path)


def _in_use(given: Sequence[_Given], steps: Sequence[Planned], ports: Ports) -> list[_Given]:
    """Return what a guest has without having written to it: it runs, lies on it, or has written to UEFI's variables."""
    try:
        domain = ports.hypervisor.domain(given[0].uuid)
    except Absent:
        return []
    first = 0 if domain.state.active or _variables_written(domain, steps, ports) else 1
    xml = domain.live_xml if domain.state.active else domain.xml
    chains = [_chain_of(disk.source, ports) for disk in parse_domain(xml).disks if disk.format == "qcow2"]
    held = {path for chain in chains for path in chain[first:]}
    return [one for one in given if one.path in held]


def _variables_written(domain: RawDomain, steps: Sequence[Planned], ports: Ports) -> bool:
    """Whether UEFI's variables are neither those that were kept nor those that were put."""
    own = [item.do for item in steps if isinstance(item.do, KeepNvram | PutNvram) and item.do.uuid == domain.uuid]
    if not any(isinstance(do, KeepNvram) for do in own):
        return False
    same = []
    for do in own:
        with suppress(Absent):
            same.append(ports.files.same_nvram(domain, do.path))
    return bool(same) and not any(same)


def _chain_of(path: str, ports: Ports) -> list[str]:
    """Return a file and all that it lies on, as the files themselves say, as far as they are files and there."""
    found: list[str] = []
    with suppress(Absent, Refused):
        while path and path not in found:
            below = ports.files.backing(path)
            found.append(path)
            path = below
    return found
