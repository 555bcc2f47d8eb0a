"""Commands in guests over SSH, with the host key that was pinned when the guest was made."""

from __future__ import annotations

from collections.abc import Sequence

from vmhost.engine.session import open_session, ssh_target
from vmhost.model.errors import VmhostError
from vmhost.model.shell import CommandResult, SshTarget
from vmhost.ops.guests import find_guest
from vmhost.ports import Ports, ShellSession

CONNECT_TIMEOUT = 15.0


def ssh_target_of(ports: Ports, name: str, *, numbers: bool = False) -> SshTarget:
    """Return how a guest is reached.

    :param numbers: take libvirt's number of one that runs, too.
    :raises NotFound: no such guest; :raises Refused: it is foreign; :raises Unreachable: it does not run or has no
        address.
    """
    return ssh_target(find_guest(ports.hypervisor, name, numbers=numbers), ports)


def session_to(ports: Ports, name: str, deadline: float) -> ShellSession:
    """Open a session to a guest: SSH, or through the guest agent where the host has no way to it by the network.

    :param deadline: monotonic time in seconds.
    :raises NotFound: no such guest; :raises Refused: it is foreign; :raises Unreachable: it does not answer.
    """
    return open_session(find_guest(ports.hypervisor, name), ports, deadline)


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
        session = ports.shell.connect(ssh_target_of(ports, name, numbers=True), deadline=deadline)
        try:
            return session.run(argv, input=input, timeout=timeout, sudo=sudo)
        finally:
            session.close()

    return dict(map_guests(one, {name: name for name in names}))
