"""Starting, stopping and restarting services, one guest after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vmhost.engine.context import Context
from vmhost.engine.execute import execute
from vmhost.engine.services.carry import do
from vmhost.engine.services.hooks import Hook, run_hook
from vmhost.engine.services.line import Lines
from vmhost.engine.services.ready import await_ready
from vmhost.model.errors import Absent, Conflict, Refused, Unreachable, VmhostError
from vmhost.model.events import Event, StepDone, StepFailed, StepStarted
from vmhost.model.guestops import ActOnUnit
from vmhost.model.steps import SetMetadata
from vmhost.ops.jobs import Job
from vmhost.ops.permission import check_may_change
from vmhost.ops.services import ActionResult, Found, Verb, looker
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.metadata import parse_metadata

if TYPE_CHECKING:
    from vmhost.model.identity import GuestMetadata
    from vmhost.ports import Ports

DONE: Final = {"start": "started", "stop": "stopped", "restart": "restarted"}


def act(
    ports: Ports,
    lines: Lines,
    found: Sequence[Found],
    verb: Verb,
    on_event: Callable[[Event], None] | None,
    cancelled: Callable[[], bool] | None,
) -> tuple[ActionResult, ...]:
    """Do it in one guest after the other, each until the service is ready; the first that fails ends it."""
    check_may_change(ports.hypervisor)
    check_may_act(found)
    subject = " ".join(dict.fromkeys(item.deployed.name for item in found))
    results: list[ActionResult] = []
    with Job(ports, f"service {verb}", subject, on_event, cancelled) as job:
        context = Context(ports, on_event=job.tell, cancelled=job.cancelled)
        for number, item in enumerate(found, 1):
            if any(result.error is not None for result in results):
                results.append(ActionResult(item.deployed.name, item.guest, "not tried"))
                continue
            step = (number, len(found), item.guest, words_of(verb, item))
            job.tell(StepStarted(*step))
            began = ports.clock.monotonic()
            try:
                context.check()
                _one(ports, lines, item, verb, context)
            except VmhostError as error:
                results.append(ActionResult(item.deployed.name, item.guest, error.message, error))
                job.tell(StepFailed(*step, error.message))
                job.fail(error)
            else:
                results.append(ActionResult(item.deployed.name, item.guest, DONE[verb]))
                job.tell(StepDone(*step, ports.clock.monotonic() - began))
    return tuple(results)


def check_may_act(found: Sequence[Found]) -> None:
    """Return when each of these services may be acted on.

    :raises Refused: one has no unit, or a newer vmhost deployed it; :raises Unreachable: its guest does not run.
    """
    for item in found:
        name = item.deployed.name
        if item.state is None or item.state.unit is None:
            text = "this service has no unit" if item.state else "a newer vmhost deployed this service"
            raise Refused(f"{name}: {text}", subject=item.guest, hint=f"vmhost service status {name}")
        if not item.domain.active:
            raise Unreachable("the guest does not run", subject=item.guest, hint=f"vmhost guest start {item.guest}")


def words_of(verb: Verb, item: Found) -> str:
    """Return what is done to a service in a guest, as a sentence."""
    unit = item.state.unit.name if item.state and item.state.unit else "its unit"
    ready = "" if verb == "stop" else ", until it is ready"
    return f"{item.guest}: {item.deployed.name}: {verb} {unit}{ready}"


def _one(ports: Ports, lines: Lines, item: Found, verb: Verb, context: Context) -> None:
    state = item.state
    assert state is not None
    assert state.unit is not None
    with ports.locks.guests([item.domain.uuid], context.waiting(item.guest)):
        metadata = _as_seen(ports, item)
        do(item.guest, ActOnUnit(state.unit.name, verb), lines)
        _note(ports, item, metadata, stopped=verb == "stop")
    if verb != "stop":
        await_ready(ports, looker(ports, lines, item.domain), item.domain, state, context)


def _as_seen(ports: Ports, item: Found) -> GuestMetadata:
    """Return the metadata of a guest that still has the service as it was seen; the guest's lock is held.

    :raises Conflict: the guest or the service is gone, or something else was deployed under its name.
    """
    name = item.deployed.name
    try:
        raw = ports.hypervisor.domain(item.domain.uuid)
    except Absent:
        raw = None
    metadata = parse_metadata(raw.xml) if raw is not None and raw.name == item.guest else None
    if metadata is not None and any(
        service.name == name and service.sha256 == item.deployed.sha256 for service in metadata.services
    ):
        return metadata
    text = f"{name} is not there any more as it was seen; nothing was done"
    raise Conflict(text, subject=item.guest, hint=f"vmhost service status {name}")


def _note(ports: Ports, item: Found, metadata: GuestMetadata, *, stopped: bool) -> None:
    """Note in the metadata whether a person stopped it, so that nobody heals what was wished."""
    services = tuple(
        replace(service, stopped=stopped) if service.name == item.deployed.name else service
        for service in metadata.services
    )
    if services != metadata.services:
        xml = metadata_xml(replace(metadata, services=services))
        execute(SetMetadata(item.domain.uuid, item.guest, xml), Context(ports))


def run_hooks(lines: Lines, found: Sequence[Found], when: Hook) -> tuple[ActionResult, ...]:
    """Run the hooks of services in this order; a failure is in its result and keeps no other from running."""
    results: list[ActionResult] = []
    for item in found:
        if item.state is None or getattr(item.state.hooks, when) is None:
            continue
        try:
            run_hook(lines, item.guest, item.state, when)
        except VmhostError as error:
            results.append(ActionResult(item.deployed.name, item.guest, error.message, error))
        else:
            results.append(ActionResult(item.deployed.name, item.guest, f"{when} done"))
    return tuple(results)
