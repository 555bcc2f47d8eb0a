"""The SSH keys that vmhost signs in with, as files under the state directory."""

from __future__ import annotations

from pathlib import Path

from vmhost.drivers.files import make_directory, make_private_directory, os_errors, write_atomically
from vmhost.model.errors import AlreadyThere
from vmhost.ports import KeyPair, Layout


class FileKeys:
    """One ed25519 key for each site: ``keys/SITE.key`` (0600) and ``keys/SITE.key.pub``."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def public(self, site: str) -> str | None:
        path = self._public_file(site)
        with os_errors(path, "read"):
            if not (path.exists() and self.private_file(site).exists()):
                return None
            return path.read_text(encoding="ascii").strip()

    def private_file(self, site: str) -> Path:
        return self._layout.state / "keys" / f"{site}.key"

    def store(self, site: str, pair: KeyPair) -> None:
        if self.public(site) is not None:
            raise AlreadyThere(
                "this site has its SSH key already", subject=site, hint=f"ls -l {self.private_file(site)}"
            )
        make_directory(self._layout.state)
        make_private_directory(self._layout.state / "keys")
        write_atomically(self.private_file(site), pair.private.encode("ascii"), mode=0o600)
        write_atomically(self._public_file(site), f"{pair.public}\n".encode("ascii"), mode=0o644)

    def _public_file(self, site: str) -> Path:
        path = self.private_file(site)
        return path.with_name(f"{path.name}.pub")
