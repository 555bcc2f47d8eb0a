"""A distribution's server on loopback: files with a signed list of checksums, and every fault that servers have."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vmhost.drivers.command import run
from vmhost.drivers.images.catalogue import CatalogueEntry

IMAGE, SUMS, SIGNATURE = "cloud.img", "SHA256SUMS", "SHA256SUMS.gpg"


@dataclass
class Mirror:
    """What a server serves, how it misbehaves, and what it was asked.

    ``cut``: bytes of each answer after which the connection ends (0: never). ``answers``: status codes that are given
    before anything is served. ``ranges``: whether parts are served. ``length``: whether it says how long an answer is.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    tag: str = '"v1"'
    cut: int = 0
    answers: list[int] = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    silent: bool = False
    leads_to: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    address: tuple[str, int] = ("", 0)
    scheme: str = "http"

    def url(self, name: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.address[1]}/{name}"

    def entry(self, *, keyring: Path | None = None, name: str = "distro-1") -> CatalogueEntry:
        """The catalogue's entry for this server."""
        return CatalogueEntry(
            name=name,
            url=self.url(IMAGE),
            checksums=self.url(SUMS),
            algorithm="sha256",
            signature=self.url(SIGNATURE) if keyring else "",
            keyring=keyring,
            keyring_package="distro-keyring",
        )

    def offer(self, image: bytes, sign: Callable[[bytes], bytes] | None = None) -> None:
        """Serve an image with its list of checksums."""
        listing = f"{'0' * 64} *other.img\n{hashlib.sha256(image).hexdigest()} *{IMAGE}\n".encode()
        self.files = {IMAGE: image, SUMS: listing}
        if sign is not None:
            self.files[SIGNATURE] = sign(listing)

    def asked_for(self, name: str) -> list[str]:
        """The ranges that were asked for of a file; empty for the whole."""
        return [wanted for path, wanted in self.asked if path == f"/{name}"]


class _Handler(http.server.BaseHTTPRequestHandler):
    mirror: Mirror
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the standard library
        pass

    def do_GET(self) -> None:
        mirror, wanted = self.mirror, self.headers.get("Range", "")
        mirror.asked.append((self.path, wanted))
        if mirror.silent:
            mirror.silent = False
            self.connection.recv(1)  # until the client has lost its patience
            return
        if mirror.leads_to:
            self.send_response(302)
            self.send_header("Location", mirror.leads_to)
            self.end_headers()
            return
        if mirror.answers and self.path == f"/{IMAGE}":
            self.send_error(mirror.answers.pop(0))
            return
        data = mirror.files.get(self.path.lstrip("/"))
        if data is None:
            self.send_error(404)
            return
        self._send(data, self._start(wanted, len(data)))

    def _start(self, wanted: str, total: int) -> int | None:
        """Where the answer starts; None: it is the whole."""
        same = self.headers.get("If-Range", self.mirror.tag) == self.mirror.tag
        if not (self.mirror.ranges and wanted and same):
            return None
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def _send(self, data: bytes, start: int | None) -> None:
        if start is not None and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        part = data[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.mirror.length:
            self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", self.mirror.tag)
        self.end_headers()
        cut = self.mirror.cut if self.path == f"/{IMAGE}" else 0
        sent = part[:cut] if cut else part
        self.mirror.sent += len(sent)
        self.wfile.write(sent)
        self.wfile.flush()
        if cut and cut < len(part):
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(mirror: Mirror, tls: tuple[Path, Path] | None = None) -> Iterator[Mirror]:
    """Serve until the block ends, with a certificate and its key over TLS."""
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        mirror.scheme = "https"
    mirror.address = ("127.0.0.1", server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass(frozen=True)
class Signer:
    """An OpenPGP key of a distribution that exists only in this test."""

    home: Path
    keyring: Path

    def sign(self, data: bytes, *options: str) -> bytes:
        """A detached signature, as a distribution puts it beside its list of checksums."""
        words = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *options, "--detach-sign", "--output", "-"]
        return run(words, timeout=60, input=data).stdout


@contextmanager
def signer(home: Path, *options: str, expires: str = "never") -> Iterator[Signer]:
    """Make a key and the packaged keyring with its public half; ``options`` are gpg's, such as another time."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", *options]
    try:
        run([*gpg, "--quick-generate-key", "Distribution <images@example.org>", "ed25519", "sign", expires], timeout=60)
        run([*gpg, "--output", str(home / "keyring.gpg"), "--export"], timeout=60)
        yield Signer(home, home / "keyring.gpg")
    finally:
        run(["gpgconf", "--homedir", str(home), "--kill", "all"], timeout=60, check=False)
