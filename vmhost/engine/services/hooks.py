"""Hooks of services around a freeze: what they do in their guests, one after the other, each with a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from vmhost.engine.context import Context, Hooked
from vmhost.engine.observe import parsed
from vmhost.engine.services.line import Lines
from vmhost.engine.session import open_session
from vmhost.model.errors import Absent, DriverError, GuestError, VmhostError
from vmhost.model.events import Notice
from vmhost.model.guestops import GuestCommand
from vmhost.model.spec.service import ServiceState
from vmhost.model.text import sanitize
from vmhost.render.service import state_of

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain

Hook = Literal["pre_freeze", "post_thaw"]

TIMED_OUT: Final = 124
"""What coreutils' timeout ends with when its time was up."""

GRACE: Final = 2.0
"""Seconds that a hook has between the signal that asks it to end and the one that ends it."""

LAST_WORDS: Final = 300
"""Characters that are told of what a failed hook said."""


def run_hook(lines: Lines, guest: str, state: ServiceState, when: Hook) -> None:
    """Run a service's hook as root, if it has one. :raises VmhostError: it failed, with its own words."""
    argv = getattr(state.hooks, when)
    if argv is None:
        return
    result = lines.run(guest, _bounded(state, argv))
    if result.exit_code == TIMED_OUT:
        text = f"{when} of {state.name} had not ended after {state.hooks.timeout:g} s"
        raise DriverError(text, subject=guest, hint=f"vmhost service status {state.name}")
    if result.exit_code != 0:
        said = sanitize(result.stderr.decode("utf-8", "replace").strip().replace("\n", " / "))[-LAST_WORDS:]
        how = result.exit_code if result.exit_code is not None else f"signal {result.signal}"
        text = f"{when} of {state.name} ended with {how}: {said or 'it said nothing'}"
        raise DriverError(text, subject=guest, hint=f"vmhost service status {state.name}")


def _bounded(state: ServiceState, argv: tuple[str, ...]) -> GuestCommand:
    """Return a hook that the guest itself ends in time, and that never runs beside the other of its service.

    So one that we no longer hear of, since we were killed or the line broke, takes no hold after the service was let
    go on. ``-o`` keeps the lock from what the hook leaves running.
    """
    limit, lock = state.hooks.timeout, f"/run/vmhost-{state.name}.hook"
    first = ("flock", "-o", "-w", f"{limit + GRACE:g}", lock, "timeout", "-k", f"{GRACE:g}", f"{limit:g}")
    return GuestCommand((*first, *argv), timeout=2 * (limit + GRACE) + GRACE)


def before_freeze(uuid: str, context: Context) -> None:
    """Run the hooks before a freeze; from here on every service has to be let go on, whatever we hear of it."""
    domain = parsed(context.ports.hypervisor.domain(uuid))
    states, unread = tuple(_with_hooks(domain)), _unread(domain)
    for name in unread:
        context.on_event(Notice(domain.name, f"a newer vmhost deployed {name}: it is not told of the freeze"))
    told = [state for state in states if state.hooks.pre_freeze is not None]
    due = tuple(state.name for state in states if state.hooks.post_thaw is not None)
    hooked = context.hooked[uuid] = Hooked(False if told or unread else None, due)
    failed = _each(domain, told, "pre_freeze", context, context.check)
    if told:
        context.hooked[uuid] = replace(hooked, well=not failed and not unread)


def after_thaw(uuid: str, context: Context, *, must: bool) -> None:
    """Let the services of a guest go on that have not been let yet; nothing of one that runs no more is stopped.

    :raises GuestError: ``must``, and one was not.
    """
    hooked, reached = context.hooked.get(uuid), context.quiesced.get(uuid)
    if hooked is not None and not hooked.due:
        return
    domain = parsed(context.ports.hypervisor.domain(uuid))
    if not domain.active:
        return
    states = [state for state in _with_hooks(domain) if state.hooks.post_thaw is not None]
    due = [state for state in reversed(states) if hooked is None or state.name in hooked.due]
    if reached is not None and reached.open:
        failed = {state.name: "its guest is not known to be thawed" for state in due}
    else:
        failed = _each(domain, due, "post_thaw", context)
    if hooked is not None:
        context.hooked[uuid] = replace(hooked, due=tuple(failed))
    if failed and must:
        text = "; ".join(f"{name} was not let go on: {why}" for name, why in failed.items())
        raise GuestError(text, subject=domain.name, hint=f"vmhost snapshot thaw {domain.name}")


def _unread(domain: ObservedDomain) -> list[str]:
    """Return the services of which nobody here knows whether they want to be told."""
    services = domain.metadata.services if domain.metadata else ()
    return [service.name for service in services if not service.stopped and state_of(service) is None]


def _with_hooks(domain: ObservedDomain) -> Iterator[ServiceState]:
    # What a person stopped is not started by us.
    services = [service for service in domain.metadata.services if not service.stopped] if domain.metadata else []
    states = (state_of(service) for service in sorted(services, key=lambda service: service.name))
    return (state for state in states if state is not None)


def _each(
    domain: ObservedDomain,
    states: list[ServiceState],
    when: Hook,
    context: Context,
    check: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run a hook of every service, and return which failed, and why; each failure is told.

    :raises Absent: the guest is gone; :raises Cancelled: ``check`` says that the operation should end.
    """
    ports, failed = context.ports, dict[str, str]()
    with Lines(lambda _, deadline: open_session(domain, ports, deadline), ports.clock) as lines:
        for state in states:
            check()
            try:
                run_hook(lines, domain.name, state, when)
            except VmhostError as error:
                if isinstance(error, Absent) and not parsed(ports.hypervisor.domain(domain.uuid)).active:
                    raise
                failed[state.name] = error.message
                context.on_event(Notice(domain.name, error.message))
    return failed
