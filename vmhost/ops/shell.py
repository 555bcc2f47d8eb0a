"""Commands in guests over SSH, with the host key that was pinned when the guest was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from shlex import quote

from vmhost.engine.reach import address_of
from vmhost.model.errors import Refused, Unreachable, VmhostError
from vmhost.model.shell import CommandResult, SshTarget
from vmhost.ops.guests import find_guest
from vmhost.ports import Ports, ShellSession

CONNECT_TIMEOUT = 15.0


def ssh_target_of(ports: Ports, name: str) -> SshTarget:
    """Return how a guest is reached.

    :raises NotFound: no such guest; :raises Refused: it is foreign; :raises Unreachable: it does not run or has no
        address.
    """
    domain = find_guest(ports.hypervisor, name)
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
        guest=domain.name,
        host=reach.host,
        port=reach.port,
        via=reach.via,
        user=_login(domain.metadata.spec),
        host_keys=(identity.host_key,),
        private_key_files=(ports.keys.private_file(domain.metadata.site),),
        use_agent=True,
    )


def session_to(ports: Ports, name: str, deadline: float) -> ShellSession:
    """Open a session to a guest: SSH, or through the guest agent where the host has no way to it by the network.

    :param deadline: monotonic time in seconds.
    :raises NotFound: no such guest; :raises Refused: it is foreign; :raises Unreachable: it does not answer.
    """
    from vmhost.engine.services.agentsession import AgentSession

    domain = find_guest(ports.hypervisor, name)
    nics = domain.metadata.identity.nics if domain.metadata else ()
    if domain.active and domain.metadata and all(nic.reach == "agent" for nic in nics):
        return AgentSession(ports.hypervisor, domain.uuid, domain.name, ports)
    return ports.shell.connect(ssh_target_of(ports, name), deadline=deadline)


def _login(spec: str) -> str:
    """Return the account that the guest's last applied spec gives to us."""
    return str(json.loads(spec or "{}").get("cloud_init", {}).get("user", "vmhost"))


def exec_in(
    ports: Ports,
    names: Sequence[str],
    argv: Sequence[str],
    *,
    timeout: float,
    sudo: bool,
    input: bytes,  # noqa: A002
) -> dict[str, CommandResult | VmhostError]:
    """Run one command in guests, eight at a time; a guest that fails does not delay the others."""
    from vmhost.drivers.ssh.fanout import map_guests

    def one(name: str) -> CommandResult:
        deadline = ports.clock.monotonic() + CONNECT_TIMEOUT
        session = ports.shell.connect(ssh_target_of(ports, name), deadline=deadline)
        try:
            return session.run(argv, input=input, timeout=timeout, sudo=sudo)
        finally:
            session.close()

    return dict(map_guests(one, {name: name for name in names}))
