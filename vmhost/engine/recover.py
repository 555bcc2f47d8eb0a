"""After kill -9 or a power cut: undo what had not reached its commit point, finish what had.

Points that were to be deleted are the exception: of those only what was begun is finished, since what was to stay
instead of them may be damaged, gone or no longer meant by now.

What a guest has gone on with since is finished, too: docs/decisions/0095.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vmhost.engine.context import Context
from vmhost.engine.execute import execute
from vmhost.engine.goneon import gone_on
from vmhost.engine.leftovers import by_hand
from vmhost.engine.record import Past, Record, read_past
from vmhost.engine.transaction import undo_steps
from vmhost.model.backupsteps import DeletePoint, DropBitmap, DropCheckpoint, RemoveFile, RestoreDisk
from vmhost.model.drills import EndDrill, LiftDrill
from vmhost.model.errors import Absent, AlreadyThere, InUse, VmhostError
from vmhost.model.netsteps import InstallNetworkUnit, KeepNetwork, RemoveNetworkUnit
from vmhost.model.plan import Planned
from vmhost.model.snapsteps import KeepSnapshots, MergeOverlays, PostThaw, SeeThawed
from vmhost.model.steps import (
    CloseAccess,
    DeleteBridge,
    DeletePool,
    DeleteVolume,
    ForgetConsole,
    Release,
    RemoveHook,
    ResizeDisk,
    ResizeVolume,
    Step,
    UnguardPort,
    UnplugNic,
)
from vmhost.ports import OpenJournal

FORWARD = (
    InstallNetworkUnit,
    RemoveNetworkUnit,
    KeepNetwork,
    DeleteVolume,
    DeletePool,
    DeleteBridge,
    RemoveHook,
    ForgetConsole,
    Release,
    UnguardPort,
    ResizeDisk,
    ResizeVolume,
    UnplugNic,
    CloseAccess,
    MergeOverlays,
    KeepSnapshots,
    DropCheckpoint,
    DropBitmap,
    DeletePoint,
    RemoveFile,
    SeeThawed,
    PostThaw,
    EndDrill,
    LiftDrill,
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one interrupted operation: the sentences of what was undone, finished or dropped, and what is
    left over.

    ``stays`` says what was not undone, or not deleted, for good, since a guest has written to it, or has it now.
    """

    operation: str
    subjects: tuple[str, ...]
    undone: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"finished {len(self.finished)}" if self.finished else f"undid {len(self.undone)}"
        rest = f", {len(self.leftovers)} left over" if self.leftovers else ""
        later = f"; what it had not deleted ({len(self.dropped)}) the next prune decides anew" if self.dropped else ""
        return "; ".join((f"{self.operation} {', '.join(self.subjects)}: {what} steps{rest}{later}", *self.stays))


def recover(context: Context) -> tuple[Recovered, ...]:
    """Settle every interrupted operation; the caller holds the host's lock.

    A journal whose settling left something over stays open, so that the next call tries again.

    :raises DamagedData: a journal cannot be read, or is a newer vmhost's.
    """
    return tuple(
        settled for journal in context.ports.journals.claim_open() if (settled := _settle(journal, context)) is not None
    )


def _settle(journal: OpenJournal, context: Context) -> Recovered | None:
    record = Record(journal.writer)
    try:
        past = read_past(journal)
    except VmhostError:
        record.close(done=False)
        raise
    if past is None:
        record.close(done=True)
        return None
    with context.ports.locks.guests(past.plan.uuids, context.waiting(past.operation)):
        settled = _finish(past, context, record) if past.committed else _undo(past, context, record)
    record.close(done=not settled.leftovers)
    return settled


def _undo(past: Past, context: Context, record: Record) -> Recovered:
    try:
        found = gone_on(past.plan.steps, context.ports, started=False)
    except VmhostError as error:
        return Recovered(past.operation, past.plan.guests, leftovers=(f"vmhost recover    # {error}",))
    if found is not None and not found.stays:
        return Recovered(past.operation, past.plan.guests, leftovers=(found.left,))
    if found is not None:
        return _go_on(past, found.text, context, record)
    undone, leftovers, stays = undo_steps(past.plan.steps, past.to_undo, context, record)
    told = {"undone": tuple(undone), "leftovers": tuple(leftovers), "stays": tuple(stays)}
    return Recovered(past.operation, past.plan.guests, **told)


def _go_on(past: Past, text: str, context: Context, record: Record) -> Recovered:
    """Take an operation that a guest has gone on with for one that has passed its commit point, and finish it."""
    for item in past.plan.steps:
        if isinstance(item.do, RestoreDisk):
            _carry_on(RemoveFile(item.do.target), context)  # most have taken the place of a disk
    record.committed()
    settled = _finish(past, context, record)
    return replace(settled, stays=(text, *settled.stays))


def _finish(past: Past, context: Context, record: Record) -> Recovered:
    """Do what deletes or changes for good; what only waits for a guest is left to the next apply.

    As when it was done first, what failed ends the rest of its subject: it rests on that.
    """
    finished: list[str] = []
    leftovers: list[str] = []
    dropped: list[str] = []
    stays: list[str] = []
    failed: set[str] = set()
    for number in past.to_finish:
        item: Planned = past.plan.after[number - len(past.plan.steps)]
        if not isinstance(item.do, FORWARD) or item.subject in failed:
            continue
        try:
            if not _carry_on(item.do, context):
                dropped.append(item.why)
                continue
        except VmhostError as error:
            if _is_anothers(item.do, error):
                stays.append(str(error))
                continue
            leftovers.append(f"{by_hand(item.do, error)}    # {error}")
            failed.add(item.subject)
            continue
        record.done(number)
        finished.append(item.why)
    told = {"finished": tuple(finished), "leftovers": tuple(leftovers), "dropped": tuple(dropped)}
    return Recovered(past.operation, past.plan.guests, **told, stays=tuple(stays))


def _is_anothers(step: Step, error: VmhostError) -> bool:
    """Whether what was to be deleted has become somebody's since: a volume by a definition, a pool by what is in it."""
    return isinstance(error, InUse) or (isinstance(step, DeletePool) and isinstance(error, AlreadyThere))


def _carry_on(step: Step, context: Context) -> bool:
    """Do what is left of a step; return whether there was to be anything: a point that is still one stays."""
    try:
        if isinstance(step, DeletePoint):
            context.ports.repositories.discard(step.ref)
        else:
            execute(step, context)
    except Absent:
        return not isinstance(step, DeletePoint)
    return True
