"""What a person may ask for about points and snapshots, as data: changes that are planned, and work that reads."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vmhost.model.errors import NotFound, VmhostError
from vmhost.model.permit import Permit
from vmhost.tui.changes import Change, Chosen, Option
from vmhost.tui.rows.cells import Line, Tone, lasting, size, span

if TYPE_CHECKING:
    from vmhost.model.events import Event
    from vmhost.ops.drills import DrillResult
    from vmhost.ops.host import Host
    from vmhost.ops.proposals import Proposal
    from vmhost.ops.verifying import Verified

Hear = Callable[["Event"], None]
Cancelled = Callable[[], bool]


class Subject(NamedTuple):
    """The guest that is meant. ``gone``: it is not here any more; ``ours``: vmhost changes it."""

    uuid: str
    name: str
    gone: bool = False
    ours: bool = True

    @property
    def word(self) -> str:
        """What a command calls it: a name means the guest that is here, so one that is gone has its UUID only."""
        return self.uuid if self.gone else self.name


@dataclass(frozen=True)
class Work:
    """Work that leaves guests and points as they are. ``look`` tells what would be done, ``carry_out`` does it and
    returns what came of it, with what failed if anything did; ``command`` is its equal. ``undoes``: it has something to
    take away at its end, so nobody may leave while it goes on.
    """

    title: str
    command: str
    look: Callable[[Host], Sequence[Line]]
    carry_out: Callable[[Host, Hear, Cancelled], tuple[Sequence[Line], VmhostError | None]]
    undoes: bool = False


STOP = Option("b", "--allow-stop", "shut it down if it runs, and start it afterwards")
POWER = Option("p", "--power-off", "power it off if it runs, and start it afterwards")
SAVED = Option("x", "--discard-saved", "lose saved memory")


def restore(name: str, point: str) -> Change:
    """Bring a guest's disks back to a point."""
    return Change(
        f"restore {name} to {point}",
        lambda host, chosen: (
            host.backups.plan_restore(
                name, point=point, stop="--allow-stop" in chosen, power_off="--power-off" in chosen
            ),
        ),
        lambda chosen: _line("backup", "restore", name, "--point", point, "--in-place", chosen=chosen),
        (STOP, POWER),
        afterwards="what its disks were is kept: look whether the guest is well, then esc, and o keeps what it has now",
    )


def restore_as(meant: Subject, point: str, name: str, site: str) -> Change:
    """Make a new guest of a point; ``site``: the file with the networks, or empty."""

    def propose(host: Host, _: Chosen) -> tuple[Proposal, ...]:
        return (new_guest_of(host, meant, point, name, site),)

    words = ("backup", "restore", meant.word, "--point", point, "--as", name, *(("--site", site) if site else ()))
    return Change(f"restore as {name}", propose, lambda _: _line(*words))


def new_guest_of(host: Host, meant: Subject, point: str, name: str, site: str) -> Proposal:
    """Plan a new guest of a point."""
    from vmhost.ops.sites import load_site

    networks = load_site(site) if site else None
    return host.backups.plan_restore_as(meant.uuid, name, point=point, site=networks)


def confirm(name: str) -> Change:
    """Give up what a guest's disks were before its restore."""
    return Change(
        f"keep what {name} has now",
        lambda host, _: (host.backups.plan_confirm(name),),
        lambda _: _line("backup", "confirm", name),
    )


def prune(meant: Subject, keep: str) -> Change:
    """Delete points that rules no longer keep; no rules: those of the guest's site."""
    words = ("backup", "prune", meant.word, *(("--keep", keep) if keep else ()))
    return Change(f"prune {meant.name}", lambda host, _: (pruning_of(host, meant, keep),), lambda _: _line(*words))


def pruning_of(host: Host, meant: Subject, keep: str) -> Proposal:
    """Plan which points go."""
    from vmhost.ops.prune import parse_keep

    return host.backups.plan_prune([meant.uuid], parse_keep(keep) if keep else None)


def revert(name: str, snapshot: str) -> Change:
    """Put a guest's disks back to a snapshot."""
    return Change(
        f"revert {name} to {snapshot}",
        lambda host, chosen: (
            host.snapshots.plan_revert(
                name,
                snapshot,
                Permit(
                    stop="--allow-stop" in chosen,
                    power_off="--power-off" in chosen,
                    discard_saved="--discard-saved" in chosen,
                ),
            ),
        ),
        lambda chosen: _line("snapshot", "revert", name, snapshot, chosen=chosen),
        (STOP, POWER, SAVED),
    )


def drop_snapshot(name: str, snapshot: str) -> Change:
    """Delete a snapshot, whose files are merged."""
    return Change(
        f"delete snapshot {snapshot} of {name}",
        lambda host, _: (host.snapshots.plan_delete(name, snapshot),),
        lambda _: _line("snapshot", "delete", name, snapshot),
    )


def verify(meant: Subject, point: str) -> Work:
    """Read every byte of a point, or, if none is named, of all points of a guest."""

    def look(host: Host) -> list[Line]:
        points = host.backups.list(meant.uuid)
        if point:
            points = (host.backups.choose(points, point, meant.uuid, None),)
        if not points:
            hint = f"vmhost backup run {shlex.quote(meant.name)}"
            raise NotFound("it has no points: there is nothing to read", subject=meant.name, hint=hint)
        head = Line(f"every byte of these is read, and of what they lie on: {size(sum(one.size for one in points))}")
        return [head, *(Line(f"  {one.id}  {one.kind:<11} {size(one.size):>5}") for one in points)]

    def carry_out(host: Host, hear: Hear, cancelled: Cancelled) -> tuple[list[Line], VmhostError | None]:
        from vmhost.ops.verifying import damages_in

        found = host.backups.verify(meant.uuid, point=point, on_event=hear, cancelled=cancelled)
        unread = () if point else host.backups.damaged(meant.uuid)
        more = [Line(f"{meant.name}  not understood, so not read: {damage}", Tone.BAD) for damage in unread]
        return [*(line for one in found for line in _verdict(one)), *more], damages_in(found, unread)

    words = ("backup", "verify", meant.word, *(("--point", point) if point else ()))
    return Work(f"verify {point or f'all points of {meant.name}'}", _line(*words), look, carry_out)


def _verdict(found: Verified) -> list[Line]:
    name, point = found.point.name, found.point.id
    bad = [Line(f"{name}  {point}  DAMAGED: {damage}", Tone.BAD) for damage in found.damages]
    well = Line(f"{name}  {point}  as it was", Tone.GOOD)
    return bad or [Line(f"{name}  {point}  deleted meanwhile", Tone.DIM) if found.gone else well]


def drill(meant: Subject, point: str) -> Work:
    """Boot a point of a guest where nobody hears it, or, if none is named, its newest whole one."""

    def look(host: Host) -> list[Line]:
        plan = host.backups.drills.plan(meant.uuid, point=point).plan
        steps = [f"{number:2}  {item.why}" for number, item in enumerate((*plan.steps, *plan.after), 1)]
        head = Line("the point is read back first; then a copy of the guest boots in a network that leads nowhere:")
        notes = [Line(f"note: {note.text}", Tone.DIM) for note in plan.notes]
        return [head, *(Line(f"  {text}") for text in steps), *notes]

    def carry_out(host: Host, hear: Hear, cancelled: Cancelled) -> tuple[list[Line], VmhostError | None]:
        from vmhost.ops.drills import raise_failures

        results = host.backups.drills.run([meant.uuid], point=point, on_event=hear, cancelled=cancelled)
        return [line for one in results for line in _came_back(one)], _error(lambda: raise_failures(results))

    words = ("backup", "drill", meant.word, *(("--point", point) if point else ()))
    return Work(f"drill {point or f'the newest point of {meant.name}'}", _line(*words), look, carry_out, undoes=True)


def _came_back(result: DrillResult) -> list[Line]:
    done = result.drill
    if done is None:
        return []
    if done.failed:
        head = Line(f"{result.name}: {done.point}: FAILED: {done.failed}", Tone.BAD)
    else:
        text = f"it came back after {span(done.rto)}; what is newer than {lasting(done.rpo)} would be lost"
        head = Line(f"{result.name}: {done.point}: {text}", Tone.GOOD)
    said = [Line("the last that it said:", Tone.DIM)] if done.console else []
    return [head, *said, *(Line(f"  {line}", Tone.DIM) for line in done.console)]


def _error(judge: Callable[[], None]) -> VmhostError | None:
    try:
        judge()
    except VmhostError as error:
        return error
    return None


def _line(*words: str, chosen: Chosen = frozenset()) -> str:
    return shlex.join(["vmhost", *words, *sorted(chosen)])
