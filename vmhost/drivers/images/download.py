"""Downloads over HTTP: whole or resumable, hashed while they are written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from vmhost.drivers.files import os_errors, write_all
from vmhost.drivers.images.publish import Progress, check_space
from vmhost.drivers.retries import tried
from vmhost.model.errors import Absent, DamagedData, DriverError, PermissionDenied, Unreachable
from vmhost.model.units import GIB, MIB

CONNECT: Final = 10.0
"""Seconds until a server must have accepted a connection."""

SILENCE: Final = 60.0
"""Seconds that a server may be silent within an answer."""

ATTEMPTS: Final = 5
LARGEST_LIST: Final = 4 * MIB
LARGEST_IMAGE: Final = 64 * GIB
_CHUNK: Final = 64 * 1024
"""Bytes that are written at once; what a lost connection brought of the next ones is lost."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A download that may be resumed: the file, and beside it what the server said of the version that it is of."""

    file: Path
    url: str

    @property
    def note(self) -> Path:
        """Where the server's validator is kept (RFC 9110, section 13.1.5: If-Range)."""
        return self.file.with_suffix(".note")

    def validator(self) -> str:
        """What If-Range needs, or empty: then nothing can be resumed."""
        try:
            note = json.loads(self.note.read_text())
            return str(note["validator"]) if note["url"] == self.url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def remove(self) -> None:
        """Forget it."""
        with os_errors(self.file, "remove"):
            self.file.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)


def fetch_small(url: str) -> bytes:
    """Return a small file from a server.

    :raises Absent: the server has no such file; :raises Unreachable: it does not answer, also after several attempts.
    :raises DamagedData: it is far too long.
    """

    def fetch() -> bytes:
        with _answer(url, {}) as answer:
            return b"".join(_chunks(answer, url, limit=LARGEST_LIST))

    return tried(fetch, Unreachable, attempts=ATTEMPTS, timeout=None)


def fetch_image(partial: Partial, algorithm: str, on_progress: Progress) -> str:
    """Download a file, or the rest of it, and return the digest of the whole in hex.

    After an interruption it goes on where it was if the server still has the same version, up to :data:`ATTEMPTS`
    times, and again at the next call.

    :raises Absent, Unreachable: as :func:`fetch_small`; what is there is kept.
    :raises NoCapacity: it will not fit; :raises DriverError: the disk is full or failed; what is there is kept.
    """

    def fetch() -> str:
        digest, have = _digest_so_far(partial, algorithm)
        validator = partial.validator() if have else ""
        headers = {"Range": f"bytes={have}-", "If-Range": validator} if validator else {}
        with _answer(partial.url, headers) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                _check_complete(answer, partial, have)
                return str(digest.hexdigest())
            if answer.status_code == requests.codes.partial_content and _starts_at(answer, have):
                mode = os.O_APPEND
            else:
                digest, have, mode = hashlib.new(algorithm), 0, os.O_TRUNC
                # In this order: what is left of another version must never stand beside the note of this one.
                partial.remove()
                _take_note(partial, answer)
            _store(answer, partial, digest, have, mode, on_progress)
        return str(digest.hexdigest())

    return tried(fetch, Unreachable, attempts=ATTEMPTS, timeout=None)


def _digest_so_far(partial: Partial, algorithm: str) -> tuple[Any, int]:
    """Hash what is there already; a download that was interrupted is worth reading once more."""
    digest, have = hashlib.new(algorithm), 0
    if partial.file.exists() and partial.validator():
        with os_errors(partial.file, "read"), partial.file.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                have += len(chunk)
    return digest, have


def _store(
    answer: requests.Response, partial: Partial, digest: Any, have: int, mode: int, on_progress: Progress
) -> None:
    length = answer.headers.get("Content-Length", "")
    rest = int(length) if length.isdigit() else 0
    check_space(partial.file.parent, rest)
    total = have + rest
    with _opened(partial.file, mode) as handle:
        for chunk in _chunks(answer, partial.url, limit=LARGEST_IMAGE - have):
            # Around the writing alone: the errors of requests are OSErrors, too.
            with os_errors(partial.file, "write"):
                write_all(handle, chunk)
            digest.update(chunk)
            have += len(chunk)
            on_progress("downloading", min(1.0, have / total) if rest else None)
        with os_errors(partial.file, "write"):
            os.fsync(handle)
    if rest and have < total:
        raise Unreachable(f"the connection ended after {have} of {total} bytes", subject=partial.url, retryable=True)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    with os_errors(path, "open"):
        handle = os.open(path, flags | os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _starts_at(answer: requests.Response, have: int) -> bool:
    return answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _check_complete(answer: requests.Response, partial: Partial, have: int) -> None:
    """There is no rest to send: either we have all (RFC 9110, section 15.5.17), or what we have is of no use."""
    if answer.headers.get("Content-Range", "") != f"bytes */{have}":
        partial.remove()
        raise Unreachable("the server has another version than the one begun", subject=partial.url, retryable=True)


def _take_note(partial: Partial, answer: requests.Response) -> None:
    """Keep the strong validator of a version: a weak ETag does not promise equal bytes (RFC 9110, section 8.8.1)."""
    tag = answer.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    with os_errors(partial.note, "write"):
        partial.note.write_text(json.dumps({"url": partial.url, "validator": validator}))


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    # What is on the wire is what is hashed: no transfer in a compressed form.
    plain = {"Accept-Encoding": "identity", **headers}
    with (
        _network_errors(url),
        requests.Session() as session,
        session.get(url, headers=plain, stream=True, timeout=(CONNECT, SILENCE)) as answer,
    ):
        _check_answer(url, answer)
        yield answer


def _check_answer(url: str, answer: requests.Response) -> None:
    secure = urlsplit(url).scheme == "https"
    if secure and any(urlsplit(step.url).scheme != "https" for step in (*answer.history, answer)):
        raise DriverError("the server leads from https to a connection that anybody can change", subject=url)
    code = answer.status_code
    if code in (requests.codes.ok, requests.codes.partial_content):
        return
    if code == requests.codes.requested_range_not_satisfiable and "Range" in answer.request.headers:
        return
    if code in (requests.codes.not_found, requests.codes.gone):
        raise Absent("the server has no such file", subject=url)
    if code in (requests.codes.unauthorized, requests.codes.forbidden):
        raise PermissionDenied(f"the server refuses ({code})", subject=url)
    if code >= requests.codes.server_error or code == requests.codes.too_many_requests:
        raise Unreachable(f"the server answers {code} {answer.reason}", subject=url, retryable=True)
    raise DriverError(f"the server answers {code} {answer.reason}", subject=url)


def _chunks(answer: requests.Response, url: str, *, limit: int) -> Iterator[bytes]:
    done = 0
    for chunk in answer.iter_content(_CHUNK):
        done += len(chunk)
        if done > limit:
            raise DamagedData(f"is longer than {limit} bytes", subject=url)
        yield chunk


@contextlib.contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turn what requests raises into errors of ours; lost connections and silence may be tried again."""
    try:
        yield
    except DriverError as error:
        error.hint = error.hint or _look(url, error)
        raise
    except requests.RequestException as error:
        hint = _look(url, _origin(error))
        why = _words(error)
        if isinstance(error, requests.exceptions.SSLError):
            text = f"the server's certificate is not to be trusted: {why}"
            raise DriverError(text, subject=url, hint=hint) from error
        if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
            raise Unreachable(f"the server does not answer: {why}", subject=url, hint=hint, retryable=True) from error
        raise DriverError(f"cannot be downloaded: {why}", subject=url, hint=hint) from error


def _origin(error: BaseException) -> BaseException:
    """Return what began a chain of errors: the library wraps it several times, each with the words of those below."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error


def _words(error: requests.RequestException) -> str:
    """Return why, in a few words."""
    origin = _origin(error)
    if isinstance(origin, socket.gaierror):
        return "its name is not known here"
    if isinstance(origin, ssl.SSLCertVerificationError):
        return origin.verify_message
    if isinstance(error, requests.Timeout) or isinstance(origin, TimeoutError):
        return f"nothing came for {CONNECT if isinstance(error, requests.ConnectTimeout) else SILENCE:.0f} s"
    if isinstance(origin, OSError) and origin.strerror:
        return origin.strerror.lower()
    return "the connection broke" if isinstance(error, requests.ConnectionError) else str(origin)


def _look(url: str, origin: BaseException) -> str:
    """Return what shows more: the name, or the server itself."""
    if isinstance(origin, socket.gaierror):
        return f"getent hosts {quote(urlsplit(url).hostname or url)}"
    return f"curl -sSI {quote(url)}"
