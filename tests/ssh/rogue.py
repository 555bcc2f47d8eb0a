"""SSH servers that log us in and then misbehave: what a guest could do that somebody has taken over."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_SUCCESS

from vmhost.drivers.entropy import SystemEntropy
from vmhost.model.shell import SshTarget

Deed = Callable[[paramiko.Channel], None]


class _Server(paramiko.ServerInterface):
    """Takes any key, and for any command does its one deed."""

    def __init__(self, deed: Deed) -> None:
        self._deed = deed

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._begin(channel)

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return self._begin(channel)

    def _begin(self, channel: paramiko.Channel) -> bool:
        if self._deed is refuse:
            return False
        if self._deed is never_answer:
            OVER.wait(30)  # this is the thread that would answer
            return False
        threading.Thread(target=self._do, args=(channel,), daemon=True).start()
        return True

    def _do(self, channel: paramiko.Channel) -> None:
        OVER.wait(0.1)  # until the answer to the request is on its way
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._deed(channel)


OVER = threading.Event()


def refuse(_: paramiko.Channel) -> None:
    """Refuse every command."""


def never_answer(_: paramiko.Channel) -> None:
    """Neither accept nor refuse."""


def end_without_a_word(channel: paramiko.Channel) -> None:
    channel.close()


def say_and_never_close(channel: paramiko.Channel) -> None:
    channel.sendall(b"done")
    channel.send_exit_status(0)


def flood(channel: paramiko.Channel) -> None:
    """Send without regard to the window, to a channel that nobody drains."""
    transport = channel.get_transport()
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_DATA)
    message.add_int(channel.remote_chanid)
    message.add_string(bytes(32_000))
    while transport.is_active():
        transport.packetizer.send_message(message)


def greet_and_flood(channel: paramiko.Channel) -> None:
    """Be an SFTP server for its first message (its version), then flood."""
    channel.sendall(b"\0\0\0\5\2\0\0\0\3")
    flood(channel)


def send_a_huge_packet(channel: paramiko.Channel) -> None:
    transport = channel.get_transport()
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_DATA)
    message.add_int(channel.remote_chanid)
    message.add_string(bytes(1 << 20))  # far above the limit, and encrypted in a moment
    transport.packetizer.send_message(message)


def answer_nobody(channel: paramiko.Channel) -> None:
    """Answer a request of a channel that does not exist."""
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_SUCCESS)
    message.add_int(4711)
    channel.get_transport().packetizer.send_message(message)


def _key(private: str) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private))


@contextlib.contextmanager
def rogue(deed: Deed, identity: Path) -> Iterator[SshTarget]:
    """A server with a deed, and the way to it; it takes any key."""
    host = SystemEntropy().keypair("rogue")
    OVER.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(_key(host.private))
            transport.start_server(event=threading.Event(), server=_Server(deed))
            transports.append(transport)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    yield SshTarget("web-01", "127.0.0.1", (host.public,), port=port, private_key_files=(identity,))
    OVER.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for transport in transports:
        transport.close()
        transport.join(5)
    thread.join(5)
