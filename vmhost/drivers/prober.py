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
        with self._connected(target, ask.port, timeout, inside) as plain, _translated(target, ask.port):
            days = None
            sock: socket.socket = plain
            if ask.tls:
                sock = _wrapped(plain, name, verify=ask.verify)
                days = _days_left(sock)
            return _ask(sock, ask, name, days)

    @contextlib.contextmanager
    def _connected(
        self, target: SshTarget, port: int, timeout: float, inside: ShellSession | None
    ) -> Iterator[socket.socket]:
        """Yield a connection that ends at the deadline, whatever the other side does with it."""
        deadline = time.monotonic() + timeout
        with _translated(target, port):
            sock = inside.dial(port, timeout=timeout) if inside else _connect(target, port, timeout)
        sock.settimeout(max(0.05, deadline - time.monotonic()))
        late = threading.Event()

        def end() -> None:
            late.set()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
        timer.daemon = True
        timer.start()
        slow = Unreachable(f"no whole answer within {timeout:g} s", subject=f"{target.host} port {port}")
        try:
            yield sock
            if late.is_set():  # what came until then may look whole to who reads until the end
                raise slow
        except Unreachable as error:
            if late.is_set() and error is not slow:
                raise slow from error
            raise
        finally:
            timer.cancel()
            sock.close()


def _connect(target: SshTarget, port: int, timeout: float) -> socket.socket:
    way = with_socket_factory(replace(target, port=port))
    if way.socket_factory is not None:
        sock: socket.socket = way.socket_factory(timeout)
        return sock
    return socket.create_connection((target.host, port), timeout)


def _wrapped(sock: socket.socket, name: str, *, verify: bool) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=name)


def _days_left(sock: socket.socket) -> float | None:
    assert isinstance(sock, ssl.SSLSocket)
    raw = sock.getpeercert(binary_form=True)
    if raw is None:
        return None
    ends = x509.load_der_x509_certificate(raw).not_valid_after_utc
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
