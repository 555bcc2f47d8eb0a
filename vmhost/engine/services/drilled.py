"""The services of a guest that is drilled, looked at by the way that leads into its drill and nowhere else."""

from __future__ import annotations

from vmhost.engine.await_guest import ssh_target
from vmhost.engine.context import Context
from vmhost.engine.observe import parsed
from vmhost.engine.reach import address_of
from vmhost.engine.services.agentsession import AgentSession
from vmhost.engine.services.line import Lines
from vmhost.engine.services.probing import Looker, Patient
from vmhost.engine.services.ready import await_ready
from vmhost.model.drills import SeeDrill
from vmhost.model.errors import Unreachable
from vmhost.model.shell import SshTarget
from vmhost.ports import ShellSession
from vmhost.render.service import state_of


def await_services(step: SeeDrill, context: Context) -> None:
    """Return when all services of the guest are good by their probes.

    :raises GuestError: one is not in time, with what each probe said last.
    """
    ports, ready = context.ports, step.ready
    states = [state for service in step.services if (state := state_of(service)) is not None]
    if not states:
        return
    name, uuid = ready.identity.name, ready.identity.uuid
    domain = parsed(ports.hypervisor.domain(uuid))

    def target() -> SshTarget:
        reach = address_of(ready.identity, ports)
        if reach is None:
            raise Unreachable("there is no way into the drill by the network", subject=name)
        return ssh_target(ready, reach, context)

    def session(_: str, deadline: float) -> ShellSession:
        if ready.by == "ssh":
            return ports.shell.connect(target(), deadline=deadline)
        return AgentSession(ports.hypervisor, uuid, name, ports)

    with Lines(session, ports.clock) as lines:
        looker = Looker(ports, lines, Patient(name, uuid, target))
        for state in states:
            await_ready(ports, looker, domain, state, context)
