"""From an address to an authenticated connection: TCP, banner, key exchange, host key, log-in, each within its time."""

from __future__ import annotations

import errno
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from paramiko import (
    Agent,
    AuthenticationException,
    BadAuthenticationType,
    PasswordRequiredException,
    PKey,
    SSHException,
)
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer

from vmhost.drivers.ssh.banner import read_banner, reason
from vmhost.drivers.ssh.openssh import PublicKey, parse_public_key
from vmhost.drivers.ssh.transport import PinnedTransport
from vmhost.drivers.ssh.wire import Wire
from vmhost.model.errors import DriverError, HostKeyMismatch, PermissionDenied, Silent, Unreachable, UsageError
from vmhost.model.shell import SshTarget

_SLICE: Final = 1.0
"""Seconds between two looks whether somebody wants to end."""

_IDLE_WAKE: Final = 0.5
"""Seconds for which the reading thread sleeps at most: the grain of keep-alives and of a blocked send's limit."""


def open_transport(
    target: SshTarget,
    deadline: float,
    sock: socket.socket | None = None,
    check: Callable[[], None] = lambda: None,
) -> PinnedTransport:
    """Connect, check the host key, log in.

    :param deadline: monotonic time in seconds; each stage also has its own limit in ``target``.
    :param sock: a connection that is open already, its banner unread; it is taken over.
    :param check: called about once a second while keys are exchanged and during the log-in; what it raises ends both.
    :return: an authenticated transport; the caller closes it.
    :raises Unreachable: no connection, banner or answer in time; ``retryable`` when a later call may succeed.
    :raises HostKeyMismatch: the server has another host key; no log-in was tried.
    :raises PermissionDenied: the server accepts none of the keys, or there is none.
    :raises DriverError: what answers is not an SSH 2 server with modern algorithms.
    """
    pins = tuple(parse_public_key(line) for line in target.host_keys)
    if not pins:
        raise UsageError("no host key is pinned", subject=target.guest)
    try:
        transport = PinnedTransport(_open_wire(target, deadline, sock), _algorithms(pins))
        try:
            _exchange_keys(transport, target, pins, deadline, check)
            _check_host_key(transport, target, pins)
            _log_in(transport, target, deadline, check)
        except BaseException:
            end_transport(transport)
            raise
    except DriverError as error:
        error.subject = error.subject or target.guest
        error.hint = error.hint or f"vmhost guest console {target.guest}"
        raise
    transport.wire.settimeout(_IDLE_WAKE)
    transport.set_keepalive(round(target.keepalive))
    return transport


def end_transport(transport: PinnedTransport) -> None:
    """Close a transport and wait for its thread; nothing of it is left."""
    transport.close()
    transport.packetizer.close()
    transport.wire.close()
    if transport.is_alive() and transport is not threading.current_thread():
        transport.join(timeout=2.0)


def _algorithms(pins: tuple[PublicKey, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pin in pins for name in pin.signature_algorithms))


def _remaining(limit: float, deadline: float) -> float:
    """Seconds that a stage may take. :raises Unreachable: when the deadline has passed."""
    seconds = min(limit, deadline - time.monotonic())
    if seconds <= 0:
        raise Silent("the time is up", retryable=True)
    return seconds


def _open_socket(target: SshTarget, deadline: float) -> socket.socket:
    seconds = _remaining(target.connect_timeout, deadline)
    try:
        if target.socket_factory:
            made: socket.socket = target.socket_factory(seconds)
            return made
        return socket.create_connection((target.host, target.port), seconds)
    except OSError as error:
        silent = isinstance(error, TimeoutError) or error.errno == errno.EHOSTUNREACH
        message = f"SSH at {target.host} port {target.port}: {reason(error)}"
        raise (Silent if silent else Unreachable)(message, retryable=True) from error


def _open_wire(target: SshTarget, deadline: float, sock: socket.socket | None) -> Wire:
    """Connect and read the banner; what was read is handed on to the library."""
    sock = sock or _open_socket(target, deadline)
    try:
        banner, rest = read_banner(sock, time.monotonic() + _remaining(target.first_line_timeout, deadline))
    except DriverError as error:
        sock.close()
        error.message = f"SSH at {target.host} port {target.port}: {error.message}"
        raise
    except BaseException:
        sock.close()
        raise
    return Wire(sock, banner + b"\r\n" + rest)


def _patiently(done: threading.Event, seconds: float, check: Callable[[], None]) -> None:
    """Wait for an event, for some seconds at most."""
    until = time.monotonic() + seconds
    while not done.wait(max(0.0, min(_SLICE, until - time.monotonic()))) and time.monotonic() < until:
        check()


def _exchange_keys(
    transport: PinnedTransport,
    target: SshTarget,
    pins: tuple[PublicKey, ...],
    deadline: float,
    check: Callable[[], None],
) -> None:
    seconds = _remaining(target.handshake_timeout, deadline)
    transport.handshake_timeout = seconds
    done = threading.Event()
    transport.start_client(event=done)
    _patiently(done, seconds, check)
    if transport.is_active() and transport.initial_kex_done:
        return
    failure = transport.failure
    if isinstance(failure, IncompatiblePeer) and "host key" in str(failure):
        expected = ", ".join(f"{pin.type} {pin.fingerprint}" for pin in pins)
        raise HostKeyMismatch(f"the SSH server has no host key of the expected kind; expected {expected}")
    if isinstance(failure, SSHException):
        raise DriverError(f"the SSH key exchange failed: {failure}")
    if transport.is_active():
        raise Silent("the SSH key exchange did not end in time", retryable=True)
    raise Unreachable("the connection was lost during the SSH key exchange", retryable=True)


def _check_host_key(transport: PinnedTransport, target: SshTarget, pins: tuple[PublicKey, ...]) -> None:
    key = transport.get_remote_server_key()
    presented = PublicKey(key.get_name(), key.asbytes())
    if presented in pins:
        return
    expected = ", ".join(pin.fingerprint for pin in pins)
    raise HostKeyMismatch(
        f"another machine answers at {target.host} port {target.port}, or the guest has new host keys: "
        f"expected {expected}, presented {presented.fingerprint} ({presented.type})"
    )


def _log_in(transport: PinnedTransport, target: SshTarget, deadline: float, check: Callable[[], None]) -> None:
    """Try the keys one after the other until the server takes one."""
    tried = 0
    for key in _keys(target):
        seconds = _remaining(target.auth_timeout, deadline)
        tried += 1
        try:
            missing = _try_key(transport, target.user, key, seconds, check)
        except BadAuthenticationType as error:
            allowed = ", ".join(error.allowed_types)
            raise PermissionDenied(f"the SSH server takes no public keys, only {allowed}") from error
        except (AuthenticationException, SSHException, EOFError, OSError) as error:
            if not transport.is_active():
                raise Unreachable(_lost_in_log_in(transport, target), retryable=True) from error
            if "timeout" in str(error):
                raise Silent("the SSH server does not answer the log-in in time", retryable=True) from error
            continue
        if missing:
            raise PermissionDenied(f"the SSH server wants more than a key for {target.user}: {', '.join(missing)}")
        return
    if not tried:
        raise PermissionDenied(f"there is no private key to log in with as {target.user}", hint="ssh-add -l")
    keys = "the key" if tried == 1 else f"any of {tried} keys"
    raise PermissionDenied(f"the SSH server does not accept {keys} for {target.user}")


def _try_key(transport: PinnedTransport, user: str, key: PKey, seconds: float, check: Callable[[], None]) -> list[str]:
    """Offer a key, and return which further proofs the server wants; errors as the library's own waiting has them."""
    done = threading.Event()
    transport.auth_publickey(user, key, done)
    _patiently(done, seconds, check)
    transport.auth_timeout = 0.0
    assert transport.auth_handler is not None
    further: list[str] = transport.auth_handler.wait_for_response(done)
    return further


def _lost_in_log_in(transport: PinnedTransport, target: SshTarget) -> str:
    """Say that the server hung up; it often says why just before (pam_nologin while the system boots)."""
    banner = (transport.get_banner() or b"").decode("utf-8", "replace")
    words = " ".join("".join(c if c.isprintable() else " " for c in banner).split())[:200]
    said = f" and said: {words}" if words else ""
    return f"the SSH server closed the connection while {target.user} logged in{said}"


def _keys(target: SshTarget) -> Iterator[PKey]:
    """The target's own keys first: sshd counts every key that is tried (``MaxAuthTries``)."""
    for path in target.private_key_files:
        yield _load_key(path)
    if target.use_agent:
        agent = Agent()
        try:
            yield from agent.get_keys()
        finally:
            agent.close()


def _load_key(path: Path) -> PKey:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionDenied(
                "others may read this private key, so it is not used", subject=str(path), hint=f"chmod 600 {path}"
            )
        return PKey.from_path(path)
    except (PasswordRequiredException, TypeError) as error:
        raise PermissionDenied("this key has a passphrase", subject=str(path), hint=f"ssh-add {path}") from error
    except OSError as error:
        raise PermissionDenied(f"the private key cannot be read: {reason(error)}", subject=str(path)) from error
    except (SSHException, UnknownKeyType, ValueError) as error:
        raise PermissionDenied("this is no private key", subject=str(path), hint=f"ssh-keygen -y -f {path}") from error
