"""A system in a tar archive, made by mmdebstrap from Debian's packages."""

from __future__ import annotations

import io
import os
import shlex
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vmhost.drivers.command import CommandFailed, run
from vmhost.drivers.files import os_errors
from vmhost.drivers.images.mirrors import host_apt_settings, host_sources, sources_file, sources_for
from vmhost.drivers.images.publish import Progress
from vmhost.drivers.images.recipe import ARCHITECTURE, Recipe, RecipeFile
from vmhost.model.errors import NotFound

TIMEOUT: Final = 1800.0

_STAGES: Final = (
    ("I: running apt-get update", 0.03, "reading the mirrors' indexes"),
    ("I: downloading packages with apt", 0.08, "downloading the base system"),
    ("I: extracting archives", 0.15, "unpacking the base system"),
    ("I: installing essential packages", 0.20, "installing the base system"),
    ("I: installing remaining packages", 0.30, "installing packages"),
    ("I: running --customize-hook", 0.85, "customising"),
    ("I: creating tarball", 0.92, "packing the system"),
)
"""What mmdebstrap says, and the share of its time that has passed then (seen on two cores)."""


class _Teller:
    """Turns the lines of mmdebstrap into progress, and keeps those that tell why it failed."""

    def __init__(self, on_progress: Progress) -> None:
        self._tell = on_progress
        self._share = 0.0
        self.no_release = False

    def line(self, text: str) -> None:
        for start, share, words in _STAGES:
            if text.startswith(start) and share > self._share:
                self._share = share
                self._tell(words, share)
        if "does not have a Release file" in text:
            self.no_release = True


def make_rootfs(recipe: Recipe, work: Path, on_progress: Progress) -> Path:
    """Install a recipe's packages and files into a tar archive in ``work``, and return its path.

    As an ordinary user it runs in a user namespace (``newuidmap`` and an entry in ``/etc/subuid`` are needed).

    :raises NotFound: the mirrors do not hold the suite.
    :raises CommandFailed: mmdebstrap failed; nothing runs any more, and what it left is in ``work``.
    """
    archive, teller = work / "rootfs.tar", _Teller(on_progress)
    argv = [
        # If we are killed, mmdebstrap is told to clean up instead of going on for nobody.
        *("setpriv", "--pdeathsig", "TERM", "--"),
        *("mmdebstrap", "--variant=minbase", f"--architectures={ARCHITECTURE}"),
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--include={','.join(recipe.packages)}",
        *_hooks(recipe, work),
        *(recipe.suite, str(archive), *_mirrors(recipe.suite, work)),
    ]
    # An ordinary user's namespace cannot enter a private home directory, so there it stays with /tmp.
    env = {"TMPDIR": str(work)} if os.geteuid() == 0 else {}
    try:
        run(argv, timeout=TIMEOUT, env=env, on_line=teller.line)
    except CommandFailed as error:
        if teller.no_release:
            text = f"this machine's mirrors do not hold Debian's suite {recipe.suite}"
            raise NotFound(text, subject=recipe.name, hint=f"rmadison --suite={recipe.suite} base-files") from error
        raise
    return archive


def _mirrors(suite: str, work: Path) -> tuple[str, ...]:
    sources = sources_for(suite, host_sources())
    if not sources:
        return ()  # mmdebstrap knows Debian's own
    return (str(_written(work / "debian.sources", sources_file(sources).encode())),)


def _hooks(recipe: Recipe, work: Path) -> list[str]:
    """The hooks of mmdebstrap(1), in the order in which they run; its special ones work in user namespaces, too."""
    settings = _written(work / "apt.conf", host_apt_settings().encode())
    early = _written(work / "early.tar", archive_of(recipe.early))
    late = _written(work / "late.tar", archive_of(recipe.late))
    customize = _written(work / "customize.sh", recipe.customize)
    return [
        f"--setup-hook=upload {shlex.quote(str(settings))} /etc/apt/apt.conf.d/00host",
        f"--essential-hook=tar-in {shlex.quote(str(early))} /",
        f"--customize-hook=tar-in {shlex.quote(str(late))} /",
        f"--customize-hook=upload {shlex.quote(str(customize))} /customize.sh",
        '--customize-hook=chroot "$1" sh -eu /customize.sh',
        '--customize-hook=rm "$1/customize.sh" "$1/etc/apt/apt.conf.d/00host"',
    ]


def archive_of(tree: Iterable[RecipeFile]) -> bytes:
    """Return files as a tar archive that unpacks alike everywhere: root's, with plain permissions."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in tree:
            entry = tarfile.TarInfo(file.path)
            entry.size, entry.mode = len(file.data), file.mode
            archive.addfile(entry, io.BytesIO(file.data))
    return buffer.getvalue()


def _written(path: Path, data: bytes) -> Path:
    with os_errors(path, "write"):
        path.write_bytes(data)
    return path
