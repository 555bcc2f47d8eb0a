"""A session in a guest: SSH, or through the guest agent where the host has no way to it by the network."""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING

from vmhost.engine.reach import address_of
from vmhost.model.errors import Refused, Unreachable
from vmhost.model.shell import SshTarget

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.ports import Ports, ShellSession


def ssh_target(domain: ObservedDomain, ports: Ports) -> SshTarget:
    """Return how a guest is reached.

    :raises Refused: it is foreign, or its hypervisor is a simulated one.
    :raises Unreachable: it does not run or has no address.
    """
    name = domain.name
    if ports.hypervisor.daemon().simulated:
        text = "this guest is simulated: at its address is another machine, or none"
        raise Refused(text, subject=name, hint="vmhost lab up    # a hypervisor with real guests")
    if domain.metadata is None:
        raise Refused(
            "this guest is foreign: vmhost does not know its host key", subject=name, hint=f"ssh {quote(name)}"
        )
    if not domain.active:
        raise Unreachable("it does not run", subject=name, hint=f"vmhost guest start {quote(name)}")
    identity = domain.metadata.identity
    reach = address_of(identity, ports)
    if reach is None:
        raise Unreachable("nobody knows its address", subject=name, hint=f"vmhost guest console {quote(name)}")
    return SshTarget(
        guest=name,
        host=reach.host,
        port=reach.port,
        via=reach.via,
        user=_login(domain.metadata.spec),
        host_keys=(identity.host_key,),
        private_key_files=(ports.keys.private_file(domain.metadata.site),),
        use_agent=True,
    )


def open_session(domain: ObservedDomain, ports: Ports, deadline: float) -> ShellSession:
    """Open a session to a guest.

    :param deadline: monotonic time in seconds.
    :raises Refused: it is foreign; :raises Unreachable: it does not answer.
    """
    from vmhost.engine.services.agentsession import AgentSession

    nics = domain.metadata.identity.nics if domain.metadata else ()
    if domain.active and domain.metadata and all(nic.reach == "agent" for nic in nics):
        return AgentSession(ports.hypervisor, domain.uuid, domain.name, ports)
    return ports.shell.connect(ssh_target(domain, ports), deadline=deadline)


def _login(spec: str) -> str:
    """Return the account that the guest's last applied spec gives to us."""
    return str(json.loads(spec or "{}").get("cloud_init", {}).get("user", "vmhost"))
