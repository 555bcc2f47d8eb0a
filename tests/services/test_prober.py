"""Probes against real servers on loopback, good ones and bad ones, from the host and through a real SSH server."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.ssh.private_sshd import PrivateSshd, free_port
from vmhost.drivers.prober import NetworkProber, _days_left
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import DriverError, Unreachable
from vmhost.model.probing import HttpAsk
from vmhost.model.shell import SshTarget

TARGET = SshTarget("web-01", "127.0.0.1", ("ssh-ed25519 AAAA",))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def serving(answer: Callable[[socket.socket], None], tls: Path | None = None) -> Iterator[int]:
    """A server that does with each connection what it is told; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(sock,), daemon=True).start()

        def one(sock: socket.socket) -> None:
            try:
                with sock:
                    if tls is None:
                        answer(sock)
                        return
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(tls)
                    with context.wrap_socket(sock, server_side=True) as wrapped:
                        answer(wrapped)
            except OSError:
                return

        threading.Thread(target=work, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def says(data: bytes) -> Callable[[socket.socket], None]:
    def answer(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)

    return answer


def drips(sock: socket.socket) -> None:
    """One byte at a time, for ever: no single wait is long."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        sock.sendall(b"x")
        time.sleep(0.05)


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def certificate(path: Path, days: float) -> Path:
    """A certificate for 127.0.0.1 of its own making that ends so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web-01")])
    ends = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshSession]:
    with PrivateSshd(tmp_path_factory.mktemp("sshd")) as sshd, SshShell() as shell:
        yield shell.connect(sshd.target(), deadline=time.monotonic() + 10)


@pytest.fixture(params=["host", "guest"])
def inside(request: pytest.FixtureRequest, session: SshSession) -> SshSession | None:
    """From where the probe connects."""
    return session if request.param == "guest" else None


def ask(port: int, inside: SshSession | None, timeout: float = 20.0, **how: object) -> tuple[int, bytes, float | None]:
    request = HttpAsk(port, **how)  # type: ignore[arg-type]
    answer = NetworkProber().http(TARGET, request, timeout=timeout, inside=inside)
    return answer.status, answer.body, answer.days


def test_a_port_that_takes_connections(inside: SshSession | None) -> None:
    with serving(silent) as port:
        NetworkProber().tcp(TARGET, port, timeout=20.0, inside=inside)


def test_a_port_that_nobody_listens_on(inside: SshSession | None) -> None:
    with pytest.raises(Unreachable, match="refused"):
        NetworkProber().tcp(TARGET, free_port(), timeout=20.0, inside=inside)


def test_an_answer_with_its_status_and_body(inside: SshSession | None) -> None:
    with serving(says(OK)) as port:
        assert ask(port, inside) == (200, b"hello", None)
    with serving(says(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")) as port:
        assert ask(port, inside)[0] == 503


def test_a_body_without_end_is_cut(inside: SshSession | None) -> None:
    def endless(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(b"y" * 65536)

    with serving(endless) as port:
        assert ask(port, inside)[1] == b"y" * 65536


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("server", [drips, silent])
def test_whatever_the_other_side_sends_the_probe_ends_in_time(
    inside: SshSession | None, server: Callable[[socket.socket], None], tls: bool, tmp_path: Path
) -> None:
    with serving(server, certificate(tmp_path / "pem", 20) if tls else None) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"no whole answer within 1\.5 s|no answer|timed out"):
            ask(port, inside, timeout=1.5, tls=tls)
        assert time.monotonic() - began < 10, "it has an end at all, also on a busy machine"


@pytest.mark.parametrize(
    "data",
    [b"", b"SSH-2.0-x\r\n", b"\x00\xff\x1b]52;c;x\x07" * 100, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200\r\n" * 200],
)
def test_what_is_no_http_is_told(inside: SshSession | None, data: bytes) -> None:
    with serving(says(data)) as port, pytest.raises(DriverError) as caught:
        ask(port, inside)
    assert str(caught.value).isprintable()


def test_how_long_a_certificate_still_holds(inside: SshSession | None, tmp_path: Path) -> None:
    with serving(says(OK), certificate(tmp_path / "pem", 20)) as port:
        status, _, days = ask(port, inside, tls=True)
        assert status == 200
        assert days == pytest.approx(20, abs=0.1)
        with pytest.raises(DriverError, match="its certificate is not good: self-signed certificate"):
            ask(port, inside, tls=True, verify=True)


def test_an_expired_certificate_is_told(inside: SshSession | None, tmp_path: Path) -> None:
    with serving(says(OK), certificate(tmp_path / "pem", -3)) as port:
        assert ask(port, inside, tls=True)[2] == pytest.approx(-3, abs=0.1)


def test_a_handshake_that_never_ends_ends_in_time(inside: SshSession | None) -> None:
    def endless(sock: socket.socket) -> None:
        sock.sendall(b"\x16\x03\x03\x3f\xff")  # a record of 16 KiB is to come, byte by byte
        while True:
            sock.sendall(b"\x02")
            time.sleep(0.05)

    with serving(endless) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"no whole answer within 0\.5 s|no answer|timed out"):
            ask(port, inside, timeout=0.5, tls=True)
        assert time.monotonic() - began < 10, "it has an end at all, also on a busy machine"


@pytest.mark.parametrize("change", [(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"), (b"\x30", b"\x31")])
def test_a_certificate_that_cannot_be_read_is_told(change: tuple[bytes, bytes], tmp_path: Path) -> None:
    made = x509.load_pem_x509_certificate(certificate(tmp_path / "pem", 20).read_bytes())
    raw = made.public_bytes(serialization.Encoding.DER)

    class Shown:
        def getpeercert(self, *, binary_form: bool) -> bytes:
            assert binary_form
            return raw.replace(*change, 1)

    with pytest.raises(DriverError, match="its certificate cannot be read"):
        _days_left(Shown())  # type: ignore[arg-type]


def test_no_tls_where_tls_is_asked_for(inside: SshSession | None) -> None:
    with serving(says(b"no\r\n")) as port, pytest.raises(DriverError, match="no TLS there"):
        ask(port, inside, tls=True)


def test_forwarding_leaves_nothing_behind(session: SshSession) -> None:
    before = set(threading.enumerate())
    with serving(says(OK)) as port:
        for _ in range(20):
            ask(port, session)
    until = time.monotonic() + 40
    while (left := {t for t in set(threading.enumerate()) - before if t.name.startswith("forward")}) and (
        time.monotonic() < until
    ):
        next(iter(left)).join(0.1)
    assert not left


def test_a_server_that_forwards_nothing_is_told(tmp_path: Path) -> None:
    with PrivateSshd(tmp_path, extra="AllowTcpForwarding no\n") as sshd, SshShell() as shell:
        opened = shell.connect(sshd.target(), deadline=time.monotonic() + 10)
        with pytest.raises(DriverError, match="does not forward connections"):
            NetworkProber().tcp(TARGET, free_port(), timeout=20.0, inside=opened)
