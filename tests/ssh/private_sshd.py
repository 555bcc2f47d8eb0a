"""A real OpenSSH server of our own: temporary host keys, a loopback port, in the foreground, gone with its context."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from vmhost.drivers.entropy import SystemEntropy
from vmhost.model.shell import SshTarget

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200:30:400
Subsystem sftp {sftp}
# The user's own profile must not run: commands are timed here.
SetEnv HOME={directory}
"""


class PrivateSshd:
    """Start with ``with PrivateSshd(directory) as sshd``; ``sshd.target()`` reaches it."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        extra: str = "",
        sftp: str = "internal-sftp",
        address: str = "127.0.0.1",
        namespace: str = "",
    ) -> None:
        self.address = address
        self.before = ["ip", "netns", "exec", namespace] if namespace else []
        self.directory = directory
        self._own_port = port
        self.port = port or free_port()
        self.user = getpass.getuser()
        self.extra = extra
        self.sftp = sftp
        self.log: list[str] = []
        self.identity = directory / "identity"
        self.host_key = self._key("host_key")
        (directory / "authorized_keys").write_text(self._key("identity") + "\n")

    def _key(self, name: str) -> str:
        pair = SystemEntropy().keypair(name)
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(pair.private)
        return pair.public

    def __enter__(self) -> PrivateSshd:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        while not self._start():
            self.port = free_port()
        return self

    def _start(self) -> bool:
        """Start it and wait until it listens; False: somebody has taken its port since."""
        config = self.directory / "sshd_config"
        values = {"port": self.port, "directory": self.directory, "sftp": self.sftp, "address": self.address}
        config.write_text(self.extra + CONFIG.format(**values))
        self._process = subprocess.Popen(
            [*self.before, SSHD, "-D", "-e", "-f", str(config)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if "Server listening" in line:
                break
        else:
            if not self._own_port and "Address already in use" in "".join(self.log):
                self._process.wait()
                self._process.stderr.close()
                self.log.clear()
                return False
            raise RuntimeError(f"sshd does not start: {''.join(self.log)}")
        self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        return True

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=50)
        # Connections keep their own processes, which hold the pipe until they end.
        self._reader.join(timeout=0.1)

    def connections(self) -> list[int]:
        """The process ids of the open connections."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def target(self, **changes: object) -> SshTarget:
        """The way in, with changes."""
        fields: dict[str, object] = {
            "guest": "web-01",
            "host": self.address,
            "port": self.port,
            "user": self.user,
            "host_keys": (self.host_key,),
            "private_key_files": (self.identity,),
        }
        return SshTarget(**(fields | changes))  # type: ignore[arg-type]


def free_port() -> int:
    """A port of the loopback address that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
