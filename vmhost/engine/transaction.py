"""One plan, applied in a straight pass: journal, step, journal; undo from the end when one fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Event
from typing import Final

from vmhost.engine.context import Context
from vmhost.engine.execute import execute, undo
from vmhost.engine.goneon import gone_on, written_disk
from vmhost.engine.leftovers import by_hand
from vmhost.engine.record import Record
from vmhost.engine.together import outlast, side_by_side
from vmhost.engine.waves import AT_ONCE, in_waves
from vmhost.model.backupsteps import RemoveFile
from vmhost.model.drills import EndDrill, LiftDrill
from vmhost.model.errors import AlreadyThere, ApplyError, Cancelled, GuestError, InUse, PartlyDone, VmhostError
from vmhost.model.events import StepDone, StepFailed, StepStarted, Undone
from vmhost.model.plan import Plan, Planned
from vmhost.model.snapsteps import (
    CheckNvram,
    KeepSnapshots,
    MergeOverlays,
    NoteLevel,
    PostThaw,
    PutNvram,
    SnapshotDisks,
    Thaw,
)
from vmhost.model.steps import (
    AwaitGuest,
    CloseAccess,
    DefineDomain,
    DeleteVolume,
    PowerOff,
    ShutDown,
    StartDomain,
    Step,
    UndefineDomain,
)

HOLDS_DISKS: Final = (MergeOverlays, DefineDomain, UndefineDomain, PowerOff, ShutDown, EndDrill, PutNvram)
"""Undos after whose failure a guest, or the next try, may still use the files that were made for it."""

USED: Final = (DeleteVolume, LiftDrill, CloseAccess, RemoveFile)
"""Undos that would take away what is used so."""

FREE: Final = (SnapshotDisks, Thaw, CheckNvram, KeepSnapshots, NoteLevel)
"""Steps that may be taken for begun before they are: to undo them then changes nothing."""


class Transaction:
    """Applies one plan: :meth:`run` up to the commit point, then :meth:`finish`.

    The two are apart so that the caller can release the host's lock between them.
    """

    def __init__(self, plan: Plan, context: Context, record: Record) -> None:
        self.plan = plan
        self.done: list[str] = []
        self.verdicts: dict[str, str] = {}
        self.told: dict[str, str] = {}
        self._stop = Event()
        self._context = replace(context, cancelled=lambda: self._stop.is_set() or context.cancelled())
        self._record = record
        self._total = len(plan.steps) + len(plan.after)
        self._begun = -1
        self._noted = 0
        self._theirs: set[int] = set()

    def run(self) -> None:
        """Do every step up to the commit point, or undo them all.

        :raises ApplyError: a step failed; its ``leftovers`` name what could not be undone (mostly nothing).
        :raises KeyboardInterrupt: Ctrl-C; everything was undone before.
        """
        for wave in in_waves(self.plan.steps):
            failures: dict[int, BaseException] = {}
            try:
                self._context.check()
                failures = self._wave(wave)
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever failed, the host is put back first
                failures = {wave[0]: error}
            if failures:
                self._fail(failures)
        self._commit()

    def finish(self) -> None:
        """Do what comes after the commit point: guests in parallel, everything else in order.

        :raises GuestError: one guest is not ready; :raises PartlyDone: several; :raises ApplyError: something could
            not be
            deleted or changed; the journal stays and ``vmhost recover`` finishes it.
        """
        chains: dict[str, list[tuple[int, Planned]]] = {}
        for number, item in enumerate(self.plan.after, len(self.plan.steps)):
            chains.setdefault(item.subject, []).append((number, item))
        waiting = {name: chain for name, chain in chains.items() if any(isinstance(i.do, AwaitGuest) for _, i in chain)}
        failures: dict[str, VmhostError] = {}
        for name, chain in chains.items():
            if name not in waiting:
                failures.update(self._chain(name, chain))
        failures.update(self._together(waiting))
        self._end(failures)

    def _together(self, chains: dict[str, list[tuple[int, Planned]]]) -> dict[str, VmhostError]:
        """Run the chains of several guests side by side; Ctrl-C ends all of them soon."""
        failures: dict[str, VmhostError] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="await") as pool:
            try:
                for failed in side_by_side(pool, lambda pair: self._chain(*pair), chains.items()):
                    failures.update(failed)
            except KeyboardInterrupt:
                self._stop.set()
                raise
        return failures

    def _wave(self, wave: range) -> dict[int, BaseException]:
        """Do steps that do not depend on each other side by side, until the last has ended; return what failed.

        Only their effects are in other threads, and the word that a thing is another's; else the journal and the
        listener are told in the order of the plan. Nothing is undone, or left, while one of them is at work.
        """
        if len(wave) == 1:
            self._one(wave[0], self.plan.steps[wave[0]])
            return {}
        self._started(*wave)
        running: dict[int, Future[tuple[str, float]]] = {}
        with ThreadPoolExecutor(len(wave), thread_name_prefix="step") as pool:
            try:
                for number in wave:
                    running[number] = pool.submit(self._execute, number, self.plan.steps[number])
            finally:
                outlast(running.values())
        return {number: error for number, future in running.items() if (error := self._ended(number, future))}

    def _ended(self, number: int, future: Future[tuple[str, float]]) -> Exception | None:
        try:
            told, seconds = future.result()
            self._finished(number, self.plan.steps[number], told, seconds)
        except Exception as error:  # noqa: BLE001 - the caller puts the host back
            return error
        return None

    def _one(self, number: int, item: Planned) -> None:
        self._started(number)
        self._finished(number, item, *self._execute(number, item))

    def _execute(self, number: int, item: Planned) -> tuple[str, float]:
        clock = self._context.ports.clock
        start = clock.monotonic()
        try:
            return execute(item.do, self._context), clock.monotonic() - start
        except AlreadyThere:
            # Written down by whoever hears it, at once: until then whoever recovers would take it for ours.
            self._theirs.add(number)
            with suppress(VmhostError):
                self._record.failed(number, theirs=True)
            raise

    def _started(self, *numbers: int) -> None:
        items = (*self.plan.steps, *self.plan.after)
        for number in numbers:
            item = items[number]
            self._context.on_event(StepStarted(number + 1, self._total, item.subject, item.why))
        if numbers[0] >= min(self._noted, len(self.plan.steps)):
            intended = range(numbers[0], self._noted_with(numbers[-1]))
            self._record.intent(*intended, durable=any(map(self._outlives_the_power, intended)))
            self._noted = intended.stop
        self._begun = numbers[-1]

    def _noted_with(self, number: int) -> int:
        """Return the number after those that are noted along with a step: what the next ones intend that may be taken
        for begun goes to the disk with it, with one wait for all.
        """
        end = number + 1
        while end < len(self.plan.steps) and isinstance(self.plan.steps[end].do, FREE):
            end += 1
        return end

    def _outlives_the_power(self, number: int) -> bool:
        """Whether a power cut may leave of a step what only its record tells of.

        Behind the commit point, which is on the disk, whatever is not known to be done is done again.
        """
        return number < len(self.plan.steps) and not self._goes_with_the_power(number)

    def _goes_with_the_power(self, number: int) -> bool:
        """Whether a power cut takes all that the undo of a step would: a guest that runs, and nothing that stays.

        libvirt may start a guest again when the host boots. One that this plan makes is powered off with its
        definition; what another was given before is undone only beneath a guest that is known to be off.
        """
        item = self.plan.steps[number]
        if not isinstance(item.do, StartDomain) or not isinstance(item.undo, PowerOff | ShutDown | None):
            return False
        before = [other.undo for other in self.plan.steps[:number] if other.undo is not None]
        return not before or any(isinstance(undo, UndefineDomain) and undo.uuid == item.do.uuid for undo in before)

    def _finished(self, number: int, item: Planned, told: str, seconds: float) -> None:
        if not self._in_vain(item.do):
            self._record.done(number)
        if told:
            kept = self.verdicts if isinstance(item.do, AwaitGuest) else self.told
            kept[item.subject] = told
        self.done.append(item.why)
        self._context.on_event(StepDone(number + 1, self._total, item.subject, item.why, seconds))

    def _in_vain(self, step: Step) -> bool:
        """Whether it is a thaw that nobody could do yet: whoever recovers has to try it again."""
        reached = self._context.quiesced.get(step.uuid) if isinstance(step, Thaw) else None
        return reached is not None and reached.open

    def _commit(self) -> None:
        """Pass the commit point, unless somebody cancelled during the last step.

        Where nothing comes after, the journal ends here, with one wait for the disk, and while the caller has the
        host's lock: nobody builds on what a power cut could still let be undone.
        """
        try:
            self._context.check()
            self._record.committed(durable=bool(self.plan.after))
        except (VmhostError, KeyboardInterrupt) as error:
            if self.plan.steps:
                self._fail({len(self.plan.steps) - 1: error})
            self._record.close(done=True)
            raise
        if not self.plan.after:
            self._record.close(done=True)

    def _fail(self, failures: Mapping[int, BaseException]) -> None:
        """Undo from the last step that was begun back to the first, then raise the first failure."""
        for number, error in failures.items():
            self._tell_failure(number, error)
        number, error = next(iter(failures.items()))
        item = self.plan.steps[number]
        touched = [step for step in range(self._begun, -1, -1) if step not in self._theirs]
        undone, leftovers = self._undo(touched)
        self._record.close(done=not leftovers)
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, Cancelled) and not leftovers:
            done = "what had been done was undone" if undone else "nothing was done"
            raise Cancelled(f"cancelled; {done}", hint="vmhost job list") from error
        hint = getattr(error, "hint", "")
        raise ApplyError(
            _once(item, error), subject=item.subject, hint=hint, done=self.done, undone=undone, leftovers=leftovers
        ) from error

    def _undo(self, touched: Sequence[int]) -> tuple[list[str], list[str]]:
        """Undo these steps, unless a guest has gone on with what they gave it: that is left to the recovery."""
        started = any(isinstance(self.plan.steps[number].do, StartDomain) for number in touched)
        try:
            found = gone_on(self.plan.steps, self._context.ports, started=started)
        except VmhostError as error:
            return [], [f"vmhost recover    # {error}"]
        if found is not None:
            return [], [found.left]
        undone, leftovers, stays = undo_steps(self.plan.steps, touched, self._context, self._record)
        return undone, [*leftovers, *(f"vmhost recover    # {text}" for text in stays)]

    def _tell_failure(self, number: int, error: BaseException) -> None:
        item = self.plan.steps[number]
        if not isinstance(error, Cancelled):
            self._context.on_event(StepFailed(number + 1, self._total, item.subject, item.why, str(error)))
        if number not in self._theirs:
            with suppress(VmhostError):  # a full disk must not keep us from undoing, and undoing twice is harmless
                self._record.failed(number, theirs=False)

    def _chain(self, name: str, chain: Sequence[tuple[int, Planned]]) -> dict[str, VmhostError]:
        """Do one subject's steps in order; the first failure ends the chain."""
        for number, item in chain:
            try:
                self._one(number, item)
            except VmhostError as error:
                self._context.on_event(StepFailed(number + 1, self._total, item.subject, item.why, str(error)))
                return {name: error}
        return {}

    def _end(self, failures: dict[str, VmhostError]) -> None:
        guests_only = all(isinstance(error, GuestError | Cancelled) for error in failures.values())
        self._record.close(done=guests_only)
        if not failures:
            return
        if guests_only and any(isinstance(error, Cancelled) for error in failures.values()):
            names = ", ".join(failures)
            text = f"cancelled after the commit point; what was done stays, only the waiting for {names} ended"
            raise Cancelled(text, hint="vmhost guest list")
        if guests_only and len(failures) == 1:
            raise next(iter(failures.values()))
        if guests_only:
            raise PartlyDone(f"{len(failures)} guests are not ready", failures=failures, hint="vmhost guest list")
        text = "; ".join(f"{name}: {error}" for name, error in failures.items())
        guest = next((error for error in failures.values() if isinstance(error, GuestError)), None)
        raise ApplyError(text, hint="vmhost recover", done=self.done, leftovers=tuple(failures)) from guest


def undo_steps(
    steps: Sequence[Planned], numbers: Sequence[int], context: Context, record: Record
) -> tuple[list[str], list[str], list[str]]:
    """Undo the steps with these numbers in this order; return what was undone, what is left over, and what stays for
    good, in words.

    Frozen file systems are thawed first, and services let go on, since the rest may take long. A guest that was
    stopped is started again when all else is as it was: it would run with what is taken away next. The files of a
    guest stay when something failed that may use them: what it has written into one is nowhere else. A new disk that
    it has written to stays for good.
    """
    undone: list[str] = []
    leftovers: list[str] = []
    stays: list[str] = []
    in_use: set[str] = set()
    for number in sorted(numbers, key=lambda number: _rank(steps[number].undo)):
        item = steps[number]
        if item.undo is None:
            continue
        if isinstance(item.undo, USED) and item.subject in in_use:
            leftovers.append(f"vmhost recover    # {_stays(item.undo)} stays, it may be in use")
            continue
        try:
            if isinstance(item.undo, DeleteVolume) and written_disk(item.do, steps, context.ports):
                stays.append(f"{item.subject} has written to {_stays(item.undo)}, so it stays")
                continue
            undo(item.undo, context)
        except InUse as error:
            stays.append(str(error))
            continue
        except Exception as error:  # noqa: BLE001 - whatever one undo meets, the others have their turn
            leftovers.append(f"{by_hand(item.undo, error)}    # {error}")
            context.on_event(Undone(item.subject, item.why, str(error)))
            if isinstance(item.undo, HOLDS_DISKS):
                in_use.add(item.subject)
            continue
        with suppress(VmhostError):
            record.undone(number)
        undone.append(item.why)
        context.on_event(Undone(item.subject, item.why))
    return undone, leftovers, stays


def _stays(step: DeleteVolume | LiftDrill | CloseAccess | RemoveFile) -> str:
    match step:
        case DeleteVolume(_, name):
            return f"volume {name}"
        case LiftDrill():
            return "what the drill reads and writes"
        case CloseAccess(bridge):
            return f"the access to {bridge}"
        case RemoveFile(path):
            return path


def _rank(undo_step: Step | None) -> int:
    """Return when an undo has its turn; what has the same goes in the order that it is given in."""
    first = (Thaw, PostThaw)
    kind = type(undo_step)
    return first.index(kind) if kind in first else 3 if kind is StartDomain else 2


def _once(item: Planned, error: BaseException) -> str:
    """Return the step and its error without the subject, which goes before both."""
    what = item.why.removeprefix(f"{item.subject}: ")
    if isinstance(error, VmhostError) and error.subject == item.subject:
        return f"{what}: {error.message}"
    return f"{what}: {error}"
