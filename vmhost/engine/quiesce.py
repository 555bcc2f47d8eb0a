"""Freezing and thawing a guest's file systems, bounded on every side. Why so: docs/decisions/0087."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, Final, assert_never

from vmhost.engine.agent import begin_command, output_of
from vmhost.engine.context import Context, Quiesced
from vmhost.engine.observe import parsed
from vmhost.engine.services.hooks import after_thaw, before_freeze
from vmhost.engine.session import ssh_target
from vmhost.model.errors import Absent, DriverError, GuestError, VmhostError
from vmhost.model.events import Notice
from vmhost.model.reservations import iso
from vmhost.model.snapshots import SNAPSHOTS, Level
from vmhost.model.snapsteps import Freeze, NoteLevel, PostThaw, PreFreeze, QuiesceStep, SeeThawed, Thaw
from vmhost.render.parse.quiesce import HOOKS_ARGV, THAW_ARGV, TOLD
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.snapshots import snapshots_xml
from vmhost.snapports import ThawGuard

ASK: Final = 3.0
"""Seconds that an agent has for an answer that costs it nothing."""

PATIENCE: Final = 25.0
"""Seconds in which thawing is tried: longer than the dead-man in the guest waits, and than a late freeze may take."""

DEAD_MAN, MARGIN = 10.0, 1.0
"""Seconds after which guests of our images thaw themselves, and how much sooner we do not rely on it any more."""

GUARD: Final = 20.0
"""Seconds after which a guest is thawed from outside of this process, which may be dead or hang by then."""

PAUSE: Final = 1.0
SSH: Final = 10.0


def quiesce(step: QuiesceStep, context: Context) -> str:
    """Do one step and return what is worth telling of it.

    :raises GuestError: the guest had to be frozen, or thawed, and was not. :raises Absent: it does not run.
    """
    match step:
        case Freeze():
            return _freeze(step, context)
        case Thaw(uuid, name, must):
            return _thaw_step(uuid, name, context, must=must)
        case PreFreeze(uuid, _):
            before_freeze(uuid, context)
        case PostThaw(uuid, _, must):
            after_thaw(uuid, context, must=must)
        case NoteLevel(uuid, _, number):
            return _note(uuid, number, context)
        case SeeThawed(uuid, name):
            return _see_thawed(uuid, name, context)
        case _:
            assert_never(step)
    return ""


def _freeze(step: Freeze, context: Context) -> str:
    """Freeze, and write down what that has reached; a guest that does not answer keeps nobody waiting for long."""
    uuid = step.uuid
    context.quiesced[uuid] = Quiesced(Level.CRASH)
    try:
        _ask(context, uuid, "guest-ping", ASK)
        level = Level.APPLICATION if _were_told(context, uuid) else Level.FILESYSTEM
        guard = _guard(step, context)
        # from here on it may be frozen, whatever we hear of it
        asked = context.ports.clock.monotonic()
        context.quiesced[uuid] = Quiesced(Level.CRASH, open=True, guard=guard)
        count = _ask(context, uuid, "guest-fsfreeze-freeze", step.timeout)
        if not isinstance(count, int) or count < 1:
            raise DriverError("its agent froze nothing", subject=step.name)
    except Absent:
        raise
    except DriverError as error:
        if step.required:
            text = f"its file systems were not frozen: {error.message}"
            raise GuestError(text, subject=step.name, hint="leave --quiesce out") from error
        context.on_event(Notice(step.name, f"not quiesced: {error.message}"))
        return ""
    context.quiesced[uuid] = Quiesced(level, count, open=True, since=asked, guard=guard)
    return ""


def _guard(step: Freeze, context: Context) -> ThawGuard:
    """Return a guard over a guest. :raises DriverError: there is none; what is absent then is not the guest."""
    try:
        return context.ports.thawing.arm(step.uuid, GUARD)
    except Absent as error:
        raise DriverError(error.message, subject=step.name) from error


def _thaw_step(uuid: str, name: str, context: Context, *, must: bool) -> str:
    """Thaw what was frozen; when it thawed before its time, the point is worth no more than a crash.

    That is so when fewer file systems are thawed than were frozen; where nobody tells, when so much time went by
    that the dead-man in the guest may have been at work.
    """
    reached, began = context.quiesced.get(uuid), context.ports.clock.monotonic()
    if reached is not None and not reached.open:
        return ""
    thawed = _thaw(uuid, name, context, PATIENCE if must else ASK * 2)
    context.quiesced[uuid] = replace(reached or Quiesced(Level.CRASH), open=thawed is None)
    if thawed is None and must:
        _mark(uuid, context, frozen=True)
        raise _frozen(name)
    if thawed is not None:
        _let_go(reached)
        _mark(uuid, context, frozen=False)
    if reached is not None:
        told = thawed is not None and thawed >= 0
        late = (thawed or 0) < reached.frozen if told else began - reached.since >= DEAD_MAN - MARGIN
        level = Level.CRASH if late else reached.level
        context.quiesced[uuid] = replace(reached, level=level, open=thawed is None)
        if late and reached.frozen:
            context.on_event(Notice(name, "its file systems thawed before the snapshot was taken: not quiesced"))
    return ""


def _see_thawed(uuid: str, name: str, context: Context) -> str:
    """Try again to thaw what would not be thawed. :raises GuestError: in vain; every list says so from now on."""
    reached = context.quiesced.get(uuid)
    if reached is not None and not reached.open:
        return ""
    with suppress(Absent):  # a guest that ended is no longer frozen
        thawed = _thaw(uuid, name, context, PATIENCE)
        context.quiesced[uuid] = replace(reached or Quiesced(Level.CRASH), open=thawed is None)
        if thawed is None:
            _mark(uuid, context, frozen=True)
            raise _frozen(name)
        _let_go(reached)
        _mark(uuid, context, frozen=False)
    return ""


def _let_go(reached: Quiesced | None) -> None:
    """End the guard over a guest that is thawed."""
    if reached is not None and reached.guard is not None:
        with suppress(DriverError):  # it would thaw once more, which is nothing
            reached.guard.dismiss()


def _frozen(name: str) -> GuestError:
    text = "its file systems are FROZEN, and neither its agent nor SSH thaws them"
    return GuestError(text, subject=name, hint=f"vmhost snapshot thaw {name}, or vmhost guest stop {name} --power-off")


def _thaw(uuid: str, name: str, context: Context, patience: float) -> int | None:
    """Thaw, and return how many file systems were frozen until then; -1: not known; None: nobody could thaw them.

    An agent that has thawed none is asked whether they are thawed, then.
    """
    ports = context.ports
    wakeups = ports.signals.open(ports.hypervisor, uuid, "")
    try:
        deadline = ports.clock.monotonic() + patience
        while True:
            try:
                count = _ask(context, uuid, "guest-fsfreeze-thaw", ASK)
                if isinstance(count, int) and (count > 0 or not _says_frozen(uuid, context)):
                    return count
            except Absent:
                raise
            except DriverError:
                pass
            if ports.clock.monotonic() >= deadline:
                break
            wakeups.wait(PAUSE)  # an agent that comes back ends the wait
    finally:
        wakeups.close()
    return -1 if _thaw_by_ssh(uuid, context) else None


def _says_frozen(uuid: str, context: Context) -> bool:
    """Whether a guest's agent says that its file systems are frozen; where it says nothing, they are not."""
    try:
        return bool(_ask(context, uuid, "guest-fsfreeze-status", ASK) == "frozen")
    except Absent:
        raise
    except DriverError:
        return False


def _thaw_by_ssh(uuid: str, context: Context) -> bool:
    """Thaw over SSH. Whether it went well is what the guest says."""
    ports = context.ports
    domain = parsed(ports.hypervisor.domain(uuid))
    try:
        if domain.metadata is None or ports.keys.public(domain.metadata.site) is None:
            return False
        target = replace(ssh_target(domain, ports), use_agent=False)  # a person's key agent may never answer
        session = ports.shell.connect(target, deadline=ports.clock.monotonic() + SSH)
        try:
            return session.run(THAW_ARGV, timeout=SSH, sudo=True).exit_code == 0
        finally:
            session.close()
    except (VmhostError, ValueError):
        return False


def _note(uuid: str, number: int, context: Context) -> str:
    """Write the level that was reached to a snapshot's record, and tell it."""
    reached = context.quiesced.get(uuid, Quiesced(Level.CRASH))
    have = parse_snapshots(context.ports.hypervisor.domain(uuid).xml)
    items = (replace(one, level=reached.level) if one.number == number else one for one in have.items)
    changed = replace(have, items=tuple(items))
    if changed != have:
        context.ports.hypervisor.set_metadata(uuid, snapshots_xml(changed), SNAPSHOTS)
    return f"snapshot of level {reached.level}"


def _mark(uuid: str, context: Context, *, frozen: bool) -> None:
    """Say in the guest's definition that it is frozen, or no longer."""
    have = parse_snapshots(context.ports.hypervisor.domain(uuid).xml)
    if bool(have.frozen) == frozen:
        return
    changed = replace(have, frozen=iso(context.ports.clock.now()) if frozen else "")
    context.ports.hypervisor.set_metadata(uuid, snapshots_xml(changed), SNAPSHOTS)


def is_marked(uuid: str, context: Context) -> bool:
    """Whether a guest's definition says that it is frozen, which only ever becomes true of one that runs."""
    return bool(parse_snapshots(context.ports.hypervisor.domain(uuid).xml).frozen)


def forget_freeze(uuid: str, context: Context) -> None:
    """Take the mark away that a guest was frozen when it ended; it has just been started."""
    with suppress(DriverError):  # a mark too many does no harm: the list says how to end it
        _mark(uuid, context, frozen=False)


def _were_told(context: Context, uuid: str) -> bool:
    """Whether all programs of the guest that want to know of a freeze were told, and there are any."""
    hooked = context.hooked.get(uuid)
    if hooked is not None and hooked.well is not None:
        return hooked.well
    return _has_hooks(context, uuid)


def _has_hooks(context: Context, uuid: str) -> bool:
    """Whether programs of the guest are told before it freezes; one that lets nobody look counts as without."""
    try:
        pid = begin_command(context.ports.hypervisor, uuid, HOOKS_ARGV)
        with closing(_outputs(context, uuid, pid)) as answers:
            for said in answers:
                if said is not None:
                    return said.strip() == TOLD
    except Absent:
        raise
    except (DriverError, KeyError, TypeError, ValueError):
        pass
    return False


def _outputs(context: Context, uuid: str, pid: int) -> Generator[bytes | None, None, None]:
    """Yield what a short command in the guest has written, or None while it runs; for as long as an answer may take."""
    wakeups = context.ports.signals.open(context.ports.hypervisor, uuid, "")
    try:
        for _ in range(int(ASK / 0.05)):
            yield output_of(context.ports.hypervisor, uuid, pid)
            wakeups.wait(0.05)
    finally:
        wakeups.close()


def _ask(context: Context, uuid: str, name: str, timeout: float) -> Any:
    """Return an agent's answer. :raises DriverError: there is none in time, or it makes no sense."""
    answer = context.ports.hypervisor.agent(uuid, json.dumps({"execute": name}), timeout)
    try:
        return json.loads(answer)["return"]
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(f"the guest agent gave no sensible answer to {name}", subject=uuid) from error
