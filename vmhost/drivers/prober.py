"""Looks at services over the network: by the way that leads to the guest, or from inside it through its session."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from vmhost.drivers.ssh.banner import reason
from vmhost.drivers.ssh.via import with_socket_factory
from vmhost.model.errors import DriverError, Unreachable
from vmhost.model.probing import HttpAnswer, HttpAsk
from vmhost.model.shell import SshTarget
from vmhost.ports import ShellSession

BODY: Final = 64 << 10
_DAY: Final = 86400.0


class NetworkProber:
    """``ports.Prober`` by sockets."""

    def tcp(self, target: SshTarget, port: int, *, timeout: float, inside: ShellSession | None = None) -> None:
        with self._connected(target, port, timeout, inside):
            return

    def http(
        self, target: SshTarget, ask: HttpAsk, *, timeout: float, inside: ShellSession | None = None
    ) -> HttpAnswer:
        name = ask.host or target.host
        with self._connected(target, ask.port, timeout, inside) as wire, _translated(target, ask.port):
            days = _days_left(wire.encrypted(name, verify=ask.verify)) if ask.tls else None
            return _ask(wire.sock, ask, name, days)

    @contextlib.contextmanager
    def _connected(self, target: SshTarget, port: int, timeout: float, inside: ShellSession | None) -> Iterator[_Wire]:
        """Yield a connection that ends at the deadline, whatever the other side does with it."""
        deadline = time.monotonic() + timeout
        with _translated(target, port):
            sock = inside.dial(port, timeout=timeout) if inside else _connect(target, port, timeout)
        sock.settimeout(max(0.05, deadline - time.monotonic()))
        wire = _Wire(sock)
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), wire.end)
        timer.daemon = True
        timer.start()
        slow = Unreachable(f"no whole answer within {timeout:g} s", subject=f"{target.host} port {port}")
        try:
            yield wire
            if wire.ended:  # what came until then may look whole to who reads until the end
                raise slow
        except DriverError as error:
            if wire.ended and error is not slow:
                raise slow from error
            raise
        finally:
            timer.cancel()
            wire.sock.close()


class _Wire:
    """A connection that another thread may end, also after it became an encrypted one."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ended = False
        self._lock = threading.Lock()

    def encrypted(self, name: str, *, verify: bool) -> ssl.SSLSocket:
        """Make it an encrypted one. :raises OSError: the other side does not speak TLS, or it has been ended."""
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        with self._lock:
            wrapped = context.wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
            self.sock = wrapped
        wrapped.do_handshake()
        return wrapped

    def end(self) -> None:
        """End it: whoever reads or writes there gets to its end."""
        with self._lock, contextlib.suppress(OSError):
            self.ended = True
            # Not by the wrapped one's own method, which takes its cipher away from under who reads.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _connect(target: SshTarget, port: int, timeout: float) -> socket.socket:
    way = with_socket_factory(replace(target, port=port))
    if way.socket_factory is not None:
        sock: socket.socket = way.socket_factory(timeout)
        return sock
    return socket.create_connection((target.host, port), timeout)


def _days_left(sock: ssl.SSLSocket) -> float | None:
    raw = sock.getpeercert(binary_form=True)
    if raw is None:
        return None
    try:
        ends = x509.load_der_x509_certificate(raw).not_valid_after_utc
    except (ValueError, x509.InvalidVersion) as error:
        raise DriverError(f"its certificate cannot be read: {str(error)[:100]!a}") from error
    return (ends - datetime.now(UTC)).total_seconds() / _DAY


def _ask(sock: socket.socket, ask: HttpAsk, name: str, days: float | None) -> HttpAnswer:
    connection = http.client.HTTPConnection(name, ask.port)
    connection.sock = sock
    connection.request("GET", ask.path, headers={"User-Agent": "vmhost", "Connection": "close"})
    answer = connection.getresponse()
    return HttpAnswer(answer.status, answer.read(BODY), days)


@contextlib.contextmanager
def _translated(target: SshTarget, port: int) -> Iterator[None]:
    """Say in our words why there was no answer."""
    place = f"{target.host} port {port}"
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise DriverError(f"its certificate is not good: {error.verify_message}", subject=place) from error
    except ssl.SSLError as error:
        raise DriverError(f"no TLS there: {error.reason or error}", subject=place) from error
    except http.client.HTTPException as error:
        text = str(error) or type(error).__name__
        raise Unreachable(f"no answer of HTTP there: {text[:100]!a}", subject=place) from error
    except OSError as error:
        raise Unreachable(reason(error), subject=place) from error
    except ValueError as error:
        raise DriverError(f"this cannot be asked for: {error}", subject=place) from error
