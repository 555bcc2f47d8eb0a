"""Files in a guest over SFTP: atomic writes, bounded reads, an absolute deadline."""

from __future__ import annotations

import errno
import posixpath
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from paramiko import Channel, SFTPAttributes, SFTPClient, SFTPFile, SSHException
from paramiko.sftp import (
    CMD_EXTENDED,
    CMD_OPEN,
    SFTP_FLAG_CREATE,
    SFTP_FLAG_EXCL,
    SFTP_FLAG_WRITE,
    SFTPError,
)

from vmhost.drivers.ssh.transport import PinnedTransport
from vmhost.model.errors import Absent, DriverError, PermissionDenied

_PIECE: Final = 32 * 1024

_TIDY: Final = 1.0
"""Seconds past the deadline that removing a temporary file may take."""


class _Bounded:
    """A channel whose every wait ends at one deadline, as the SFTP client uses it."""

    def __init__(self, transport: PinnedTransport, channel: Channel, deadline: float) -> None:
        self._transport = transport
        self._channel = channel
        self.deadline = deadline
        transport.watch(channel)

    @property
    def closed(self) -> bool:
        return self._channel.closed

    def _remaining(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def send(self, data: bytes) -> int:
        channel = self._channel
        with channel.out_buffer_cv:
            if not channel.out_buffer_cv.wait_for(lambda: channel.out_window_size or channel.closed, self._remaining()):
                raise TimeoutError
        try:
            return self._transport.send_data(channel, data, self.deadline)
        except BrokenPipeError:
            return 0

    def recv(self, size: int) -> bytes:
        self._channel.settimeout(self._remaining())
        return self._channel.recv(size)

    def recv_ready(self) -> bool:
        return self._channel.recv_ready()

    def get_name(self) -> str:
        return self._channel.get_name()

    def close(self) -> None:
        self._transport.unwatch(self._channel)
        self._channel.close()


class _Client(SFTPClient):
    """The SFTP client with what the library leaves out."""

    def create(self, path: str, mode: int) -> SFTPFile:
        """Create a file that must not exist, with these permission bits from its first moment."""
        attributes = SFTPAttributes()
        attributes.st_mode = mode
        flags = SFTP_FLAG_WRITE | SFTP_FLAG_CREATE | SFTP_FLAG_EXCL
        _, message = self._request(CMD_OPEN, path, flags, attributes)  # type: ignore[attr-defined]  # not in the stubs
        return SFTPFile(self, message.get_binary(), "w", -1)

    def sync(self, file: SFTPFile) -> None:
        """Write a file through to the disk, where the server knows how (OpenSSH's PROTOCOL, 4.5)."""
        try:
            self._request(CMD_EXTENDED, "fsync@openssh.com", file.handle)  # type: ignore[attr-defined]
        except OSError as error:
            if "unsupported" not in str(error).lower():
                raise
            # The rename is atomic all the same; only a power cut just now could lose it.


class RemoteFiles:
    """Reads and writes files in a guest; one operation at a time on a channel of its own, opened when first needed."""

    def __init__(self, transport: PinnedTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._bounded: _Bounded | None = None
        self._client: _Client | None = None

    def write(self, path: str, data: bytes, *, mode: int, deadline: float) -> None:
        """Put a file in place; see ``SshSession.write_file``."""
        directory, name = posixpath.split(path)
        temporary = posixpath.join(directory, f".{name[:200]}.{secrets.token_hex(8)}")
        with self._lock, self._translated(path):
            client = self._open(deadline)
            try:
                with client.create(temporary, 0o600) as file:
                    # One request at a time: the library's pipelined writes lose the refusals of the last ones.
                    file.write(data)
                    file.chmod(mode)
                    client.sync(file)
                client.posix_rename(temporary, path)
            except BaseException:
                self._discard(temporary)
                raise

    def read(self, path: str, *, cap: int, deadline: float) -> bytes:
        """Return a file's content; see ``SshSession.read_file``."""
        with self._lock, self._translated(path), self._open(deadline).open(path, "rb") as file:
            data = bytearray()
            while piece := file.read(_PIECE):
                data += piece
                if len(data) > cap:
                    raise DriverError(f"larger than {cap} bytes", subject=path)
            return bytes(data)

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """Say which file the server refused and why; after a time-out the channel is of no further use."""
        try:
            yield
        except TimeoutError as error:
            self._reset()
            raise DriverError("the SSH server does not answer about this file in time", subject=path) from error
        except SFTPError as error:
            self._reset()
            raise DriverError(f"the SSH server's sftp speaks nonsense: {error}", subject=path) from error
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise Absent("no such file or directory", subject=path) from error
            if error.errno == errno.EACCES:
                raise PermissionDenied("permission denied", subject=path) from error
            raise DriverError(f"the SSH server refused: {error.strerror or error}", subject=path) from error

    def _discard(self, temporary: str) -> None:
        """Remove a temporary file if the connection still allows it."""
        if self._bounded is None or self._client is None:
            return
        self._bounded.deadline = max(self._bounded.deadline, time.monotonic() + _TIDY)
        try:
            self._client.remove(temporary)
        except (OSError, EOFError, SSHException, SFTPError):
            return  # it was never made, or nobody answers any more

    def _reset(self) -> None:
        if self._bounded is not None:
            self._bounded.close()
        self._bounded = self._client = None

    def _open(self, deadline: float) -> _Client:
        if self._client is None or self._bounded is None or self._bounded.closed:
            self._reset()
            channel = self._transport.open_command_channel(deadline)
            self._transport.request(channel, "subsystem", "sftp", deadline=deadline)
            bounded = _Bounded(self._transport, channel, deadline)
            try:
                self._client = _Client(bounded)  # type: ignore[arg-type]  # it asks for the calls of _Bounded only
            except (SSHException, SFTPError) as error:
                bounded.close()
                if not self._transport.is_active():
                    raise EOFError from error
                raise DriverError("the SSH server has no sftp subsystem") from error
            self._bounded = bounded
        self._bounded.deadline = deadline
        return self._client
