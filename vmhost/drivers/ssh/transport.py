"""One SSH connection: modern algorithms, the pinned host key only, and a wake-up for whoever waits on a channel.

Built on the places where paramiko is meant to be extended (the ``preferred_*`` properties, ``packetizer_class``, its
messages), since its own waits cannot be bounded: ``exec_command`` and the sftp subsystem wait for ever for an answer,
``exit-signal`` is not read, and the time-out of ``start_client`` passes in silence.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from paramiko import Channel, Message, SSHException, Transport
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_DATA,
    cMSG_CHANNEL_EOF,
    cMSG_CHANNEL_REQUEST,
)
from paramiko.packet import Packetizer

from vmhost.drivers.ssh.wire import Wire
from vmhost.model.errors import DriverError

# paramiko logs every lost connection with its traceback; without a handler Python would print that to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
MACS: Final = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
KEX: Final = (
    "mlkem768x25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
)
USER_KEYS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)

_DRAIN_EVERY: Final = 256 * 1024
"""Received bytes after which a waiter is woken to drain: well inside the window of 2 MiB, so that the peer never
stops."""

_LIVENESS: Final = 0.1
"""Seconds between two looks whether the connection still lives, while it exchanges keys and nothing would wake us."""


_ATTEMPTS: Final = 5
"""How often a refused channel is asked for."""


_FLOOD: Final = 8 * 1024 * 1024
"""Unread bytes on a channel beyond which the peer plainly ignores the windows of 2 MiB; the library does not check."""

_PACKET_LIMIT: Final = 256 * 1024
"""The largest packet in bytes; RFC 4253, 6.1 asks for 35,000, OpenSSH takes as much as this."""

_MESSAGE_HEAD: Final = 64
"""Bytes that a data message takes beside its data, generously."""


class ChannelWatch:
    """What was seen on one channel.

    ``wake`` is set when there is something to do; ``sending`` asks to be woken also when the peer makes room,
    ``reading`` whenever something has come, and not only before the window is full; ``signal`` is the
    signal that ended the command.
    """

    __slots__ = ("channel", "reading", "sending", "signal", "unread", "wake")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.wake = threading.Event()
        self.signal: str | None = None
        self.sending = False
        self.reading = False
        self.unread = 0


class WatchingPacketizer(Packetizer):
    """Tells the waiter of a channel that a message for it *has been handled*.

    The transport's thread handles a message between two calls of ``read_message``; so at the next call the channel is
    up to date, and a waiter that is woken then finds what it was woken for.
    """

    def __init__(self, sock: Wire) -> None:
        super().__init__(sock)
        self.watches: dict[int, ChannelWatch] = {}
        self._handled: ChannelWatch | None = None

    def read_message(self) -> tuple[int, Message]:
        """Read a message; before that, wake whoever waits for the one before."""
        if self._handled is not None:
            self._handled.wake.set()
            self._handled = None
        kind, message = super().read_message()
        if MSG_CHANNEL_OPEN_SUCCESS <= kind <= MSG_CHANNEL_FAILURE:
            watch = self.watches.get(message.get_int())
            if watch is not None:
                self._note(watch, kind, message)
            message.rewind()
        return kind, message

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read ``n`` bytes; the library would collect a packet of up to 4 GiB."""
        if n > _PACKET_LIMIT:
            raise SSHException("the peer sends a packet that is too large")
        return super().read_all(n, check_rekey)

    def _note(self, watch: ChannelWatch, kind: int, message: Message) -> None:
        if kind in {MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA}:
            if len(watch.channel.in_buffer) + len(watch.channel.in_stderr_buffer) > _FLOOD:
                raise SSHException("the peer sends more than it was given room for")
            watch.unread += len(message.get_remainder())
            if watch.unread < _DRAIN_EVERY and not watch.reading:
                return
            watch.unread = 0
            self._handled = watch
        elif kind in {MSG_CHANNEL_CLOSE, MSG_CHANNEL_FAILURE} or (kind == MSG_CHANNEL_WINDOW_ADJUST and watch.sending):
            self._handled = watch
        elif kind == MSG_CHANNEL_REQUEST and message.get_text() == "exit-signal":
            message.get_boolean()
            watch.signal = "".join(c for c in message.get_text() if c.isalnum())[:16]

    def close(self) -> None:
        """Close, cancel the library's handshake timer (a thread that would outlive us) and wake everybody."""
        self.complete_handshake()
        super().close()
        for watch in list(self.watches.values()):
            watch.wake.set()


class PinnedTransport(Transport):
    """An SSH transport that offers modern algorithms and accepts only the pinned keys' host key algorithms.

    :param wire: the connection; its next bytes are the server's version line.
    :param host_key_algorithms: the names that may sign the key exchange, best first.
    """

    packetizer: WatchingPacketizer

    def __init__(self, wire: Wire, host_key_algorithms: Sequence[str]) -> None:
        self._host_key_algorithms = tuple(host_key_algorithms)
        super().__init__(wire, packetizer_class=WatchingPacketizer)
        self.wire = wire
        wire.belongs_to(self)

    @property
    def preferred_ciphers(self) -> Sequence[str]:
        """No CBC, no 3DES."""
        return CIPHERS

    @property
    def preferred_macs(self) -> Sequence[str]:
        """No MD5, no SHA-1, nothing shortened."""
        return MACS

    @property
    def preferred_kex(self) -> Sequence[str]:
        """What this library build knows of ours; the hybrid exchange needs a recent cryptography."""
        known = super().preferred_kex
        return tuple(name for name in KEX if name in known)

    @property
    def preferred_keys(self) -> Sequence[str]:
        """The pinned keys' algorithms and nothing else, no certificates either."""
        return self._host_key_algorithms

    @property
    def preferred_pubkeys(self) -> Sequence[str]:
        """The algorithms with which we log in."""
        return USER_KEYS

    @property
    def failure(self) -> Exception | None:
        """What ended the connection, if it was not us."""
        return self.saved_exception

    def open_command_channel(self, deadline: float) -> Channel:
        """Open a channel for a command or a subsystem; nothing runs in it yet.

        sshd counts a channel until it has turned its loop once more after the close, so a refusal may be about one
        that is just going. Its refusal comes after that turn: asking again at once is enough, and needs no pause.

        :raises DriverError: the server refuses further channels.
        :raises SSHException: no answer before the deadline, or the connection has ended.
        """
        refusal: SSHException | None = None
        for _ in range(_ATTEMPTS):
            try:
                return self.open_session(timeout=max(0.0, deadline - time.monotonic()))
            except SSHException as error:
                # Not only ChannelException: the library keeps one error for all threads, and another may have taken it.
                if not self.is_active() or time.monotonic() >= deadline:
                    raise
                refusal = error
        raise DriverError(f"the SSH server opens no more channels: {refusal}", retryable=True)

    def watch(self, channel: Channel) -> ChannelWatch:
        """Begin to watch a channel; :meth:`unwatch` ends it."""
        watch = self.packetizer.watches[channel.chanid] = ChannelWatch(channel)
        return watch

    def unwatch(self, channel: Channel) -> None:
        """End watching a channel."""
        self.packetizer.watches.pop(channel.chanid, None)

    def request(self, channel: Channel, kind: str, *details: bytes | str, deadline: float) -> None:
        """Send a channel request (RFC 4254, 5.4) and do not wait for its answer: a refusal closes the channel.

        :raises SSHException: when the connection is exchanging keys until past the deadline.
        :raises EOFError: when the connection has ended.
        """
        message = _message(cMSG_CHANNEL_REQUEST, channel)
        message.add_string(kind)
        message.add_boolean(True)
        for detail in details:
            message.add_string(detail)
        self._send_on(channel, message, deadline)

    def send_data(self, channel: Channel, data: bytes, deadline: float) -> int:
        """Send as much of ``data`` as the peer has room for, in one message, and return how much that was.

        :raises BrokenPipeError: the channel is closed.
        :raises SSHException: as :meth:`request`.
        :raises EOFError: as :meth:`request`.
        """
        with channel.lock:
            size = min(len(data), channel.out_window_size, channel.out_max_packet_size - _MESSAGE_HEAD)
            channel.out_window_size -= size
        if size <= 0:
            return 0
        message = _message(cMSG_CHANNEL_DATA, channel)
        message.add_string(data[:size])
        if not self._send_on(channel, message, deadline):
            raise BrokenPipeError
        return size

    def send_eof(self, channel: Channel, deadline: float) -> None:
        """Close the stream of ``data``; a closed channel is fine. :raises EOFError: when the connection has ended."""
        with channel.lock:
            channel.eof_sent = True
        self._send_on(channel, _message(cMSG_CHANNEL_EOF, channel), deadline)

    def _send_on(self, channel: Channel, message: Message, deadline: float) -> bool:
        """Send a message unless the channel is closed; False when it is.

        The look and the send are one: the reading thread answers the peer's close under the same lock. The library
        looks first and sends later, and sshd ends the whole connection when something comes for a channel that is gone.
        """
        while (remaining := deadline - time.monotonic()) > 0:
            self.clear_to_send.wait(min(remaining, _LIVENESS))
            if not self.is_active():
                raise EOFError
            with self.clear_to_send_lock:
                if channel.closed:
                    return False
                if self.clear_to_send.is_set():
                    self.packetizer.send_message(message)
                    return True
        raise SSHException("the key exchange takes too long")


def _message(kind: bytes, channel: Channel) -> Message:
    message = Message()
    message.add_byte(kind)
    message.add_int(channel.remote_chanid)
    return message
