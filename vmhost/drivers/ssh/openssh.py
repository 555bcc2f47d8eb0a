"""OpenSSH's own formats: public keys, fingerprints, known_hosts lines and the system's ``ssh`` as a command line."""

from __future__ import annotations

import base64
import binascii
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmhost.model.errors import UsageError
from vmhost.model.shell import SshTarget

_SIGNATURES: Final = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its type and its bytes as they go over the wire (RFC 4253, 6.6)."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint as ``ssh-keygen -l`` prints it: ``SHA256:`` and base64 without padding."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """The names under which the key may sign a key exchange; an RSA key never with SHA-1 (RFC 8332)."""
        return _SIGNATURES[self.type]

    def __str__(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


def parse_public_key(line: str) -> PublicKey:
    """Read a public key line ``TYPE BASE64 [COMMENT]``.

    :raises UsageError: when it is no such line, or of a type that is not accepted (DSA, certificates, hardware keys).
    """
    words = line.split(None, 2)
    kind = words[0] if words else ""
    try:
        blob = base64.b64decode(words[1] if len(words) > 1 else "", validate=True)
    except binascii.Error:
        blob = b""
    if kind not in _SIGNATURES or not blob.startswith(_wire_string(kind)):
        raise UsageError("not a public key as OpenSSH writes it", subject=line[:80], hint="ssh-keygen -y -f KEYFILE")
    return PublicKey(kind, blob)


def known_hosts_line(host: str, port: int, key: str) -> str:
    """Return the line of a known_hosts file that pins ``key`` (an OpenSSH public key line) for a host; sshd(8)."""
    name = host if port == 22 else f"[{host}]:{port}"
    return f"{name} {parse_public_key(key)}"


def ssh_argv(
    target: SshTarget, known_hosts_path: Path, command: Sequence[str] = (), *, tty: bool = False, proxy: str = ""
) -> tuple[str, ...]:
    """Return the command line of the system's ``ssh`` to a guest, as strict as our own connections; ssh_config(5).

    :param known_hosts_path: a file with the :func:`known_hosts_line` of each pinned key; nothing else is trusted.
    :param command: an argument tuple, quoted here for the guest's shell; empty for a login shell.
    :param tty: ask for a terminal although there is a command.
    :param proxy: a ``ProxyCommand``; empty: a TCP connection.
    """
    algorithms = dict.fromkeys(name for key in target.host_keys for name in parse_public_key(key).signature_algorithms)
    options = {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": _file_option(known_hosts_path),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlgorithms": ",".join(algorithms),
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "VerifyHostKeyDNS": "no",
        # With IdentitiesOnly ssh would offer only those keys of the agent that also stand in a file.
        "IdentitiesOnly": "no" if target.use_agent else "yes",
        # One time for the connection and for the server's first line.
        "ConnectTimeout": str(max(1, round(target.connect_timeout + target.first_line_timeout))),
    }
    if proxy:
        options["ProxyCommand"] = proxy
    if not target.use_agent:
        options["IdentityAgent"] = "none"
    identities = [word for path in target.private_key_files for word in ("-i", str(path))]
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    end = [shlex.join(command)] if command else []
    flags = ["-t"] if tty else []
    return ("ssh", *flags, "-l", target.user, "-p", str(target.port), *identities, *settings, "--", target.host, *end)


def _wire_string(text: str) -> bytes:
    """Encode a string as SSH does (RFC 4251, 5)."""
    return len(text).to_bytes(4, "big") + text.encode()


def _file_option(path: Path) -> str:
    """Quote a path for an option that takes several files and expands ``%`` tokens."""
    return '"' + str(path).replace("%", "%%") + '"'
