"""Sockets to guests that the host's own routing does not lead to: from inside a namespace, or through another host.

Whoever has the socket does not know which way it goes: the rest of this room takes it as any other.
"""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import Final

from vmhost.drivers import netns
from vmhost.drivers.command import socket_to
from vmhost.drivers.ssh.openssh import known_hosts_line, parse_public_key
from vmhost.model.reach import AccessPort, Jump
from vmhost.model.shell import SshTarget

_PYTHON: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from vmhost.helpers.proxy import main; sys.exit(main(sys.argv[1:]))"
)


def with_socket_factory(target: SshTarget) -> SshTarget:
    """Return a target whose ``socket_factory`` goes the way that its ``via`` says."""
    if target.via is None or target.socket_factory is not None:
        return target
    return replace(target, socket_factory=_factory(target))


def _factory(target: SshTarget) -> Callable[[float], socket]:
    via, host, port = target.via, target.host, target.port
    if isinstance(via, AccessPort):
        namespace = via.namespace

        def from_namespace(seconds: float) -> socket:
            try:
                return netns.connect(namespace, host, port, max(seconds, 1.0))
            except FileNotFoundError as error:
                text = f"there is no namespace {namespace}: the way there is gone until the next apply"
                raise OSError(errno.ENETUNREACH, text) from error

        return from_namespace
    return lambda _seconds: socket_to(proxy_argv(target))


def proxy_argv(target: SshTarget) -> tuple[str, ...]:
    """Return the command whose standard input and output are the connection to the guest's SSH server."""
    via = target.via
    if isinstance(via, AccessPort):
        top = str(Path(__file__).parents[3])
        python = (sys.executable, "-I", "-c", _PYTHON, top)
        return (*python, via.namespace, target.host, str(target.port))
    assert isinstance(via, Jump)
    return _through(via, target)


def proxy_command(target: SshTarget) -> str:
    """Return the same as OpenSSH's ``ProxyCommand``, which expands ``%`` tokens (ssh_config(5))."""
    return shlex.join(proxy_argv(target)).replace("%", "%%")


def _through(jump: Jump, target: SshTarget) -> tuple[str, ...]:
    """``ssh -W`` to the jump host, which trusts the pinned key alone: it comes from a command, not from a file."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    line = known_hosts_line(jump.host, jump.port, jump.host_key)
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "KnownHostsCommand": f"{_ECHO} {shlex.quote(line)}",
        "HostKeyAlgorithms": ",".join(parse_public_key(jump.host_key).signature_algorithms),
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "ConnectTimeout": str(max(1, round(target.connect_timeout + target.banner_timeout))),
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    identities = [word for path in target.private_key_files for word in ("-i", str(path))]
    return (
        "ssh",
        "-l",
        jump.user,
        "-p",
        str(jump.port),
        *identities,
        *settings,
        "-W",
        f"{host}:{target.port}",
        "--",
        jump.host,
    )


_ECHO: Final = "/bin/echo"
