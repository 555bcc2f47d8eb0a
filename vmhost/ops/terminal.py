"""A person's terminal inside a guest: the system's ssh with the pinned host key, and the serial console."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING, NoReturn

from vmhost.model.errors import Unreachable
from vmhost.ops.guests import find_guest
from vmhost.ops.permission import check_runs

if TYPE_CHECKING:
    from vmhost.ops.host import Host


def run_ssh(host: Host, name: str, command: Sequence[str]) -> NoReturn:
    """Become the system's ssh client in a guest; the process is replaced.

    :raises NotFound: no such guest; :raises Unreachable: it does not run; :raises Refused: it is a made-up one.
    """
    from vmhost.drivers.command import replace

    replace(_ssh_argv(host, name, command))


def run_console(host: Host, name: str) -> NoReturn:
    """Become virsh on a guest's serial console; the process is replaced.

    :raises NotFound: no such guest; :raises Unreachable: it does not run; :raises Refused: it is a made-up one.
    """
    from vmhost.drivers.command import replace

    replace(_console_argv(host, name))


def visit_ssh(host: Host, name: str) -> int:
    """Run the system's ssh client in a guest on our terminal, and return its exit code when the person comes back.

    :raises NotFound: no such guest; :raises Unreachable: it does not run; :raises Refused: it is a made-up one.
    """
    from vmhost.drivers.command import foreground

    return foreground(_ssh_argv(host, name, ()))


def visit_console(host: Host, name: str) -> int:
    """Run virsh on a guest's serial console on our terminal, and return its exit code when the person comes back.

    :raises NotFound: no such guest; :raises Unreachable: it does not run; :raises Refused: it is a made-up one.
    """
    from vmhost.drivers.command import foreground

    return foreground(_console_argv(host, name))


def _ssh_argv(host: Host, name: str, command: Sequence[str]) -> tuple[str, ...]:
    from vmhost.drivers.files import make_directory, make_private_directory, write_atomically
    from vmhost.drivers.ssh.openssh import known_hosts_line, ssh_argv
    from vmhost.drivers.ssh.via import proxy_command

    check_runs(host.hypervisor, name)
    target = host.ssh_target(name)
    directory = make_private_directory(make_directory(host.ports.layout.runtime) / "known_hosts")
    path = directory / target.guest
    lines = "".join(known_hosts_line(target.host, target.port, key) + "\n" for key in target.host_keys)
    write_atomically(path, lines.encode("ascii"), mode=0o600)
    proxy = proxy_command(target) if target.via else ""
    return tuple(ssh_argv(target, path, command, proxy=proxy))


def _console_argv(host: Host, name: str) -> tuple[str, ...]:
    check_runs(host.hypervisor, name)
    domain = find_guest(host.hypervisor, name, numbers=True)
    if not domain.active:
        raise Unreachable("it does not run", subject=name, hint=f"vmhost guest start {quote(name)}")
    return ("virsh", "--connect", host.hypervisor.daemon().uri, "console", domain.uuid)
