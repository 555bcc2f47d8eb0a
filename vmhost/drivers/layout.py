"""Where things lie: one place for each hypervisor, whoever asks."""

from __future__ import annotations

import os
from pathlib import Path

from vmhost.drivers.files import make_directory, make_private_directory
from vmhost.model.errors import UsageError
from vmhost.model.layout import Layout


def layout_for(privileged: bool) -> Layout:
    """Return the paths of the system's hypervisor (``privileged``) or of the user's own session; nothing is made yet.

    They follow the hypervisor, never the uid: root on ``qemu:///session`` gets root's session. Each part may be moved
    to an absolute path by ``VMHOST_STATE_DIR``, ``VMHOST_RUNTIME_DIR``, ``VMHOST_CONFIG_DIR``, ``VMHOST_IMAGES_DIR``,
    ``VMHOST_DISKS_DIR``, ``VMHOST_LOG_DIR`` and ``VMHOST_BACKUPS_DIR``; images, disks and backups follow the state when
    only that is moved.

    :raises UsageError: one of these is not an absolute path.
    """
    standard = _system() if privileged else _session()
    state = _moved("STATE", standard.state)
    followed = state != standard.state
    return Layout(
        state=state,
        runtime=_moved("RUNTIME", standard.runtime),
        config=_moved("CONFIG", standard.config),
        images=_moved("IMAGES", state / "images" if followed else standard.images),
        disks=_moved("DISKS", state / "disks" if followed else standard.disks),
        logs=_moved("LOG", standard.logs),
        backups=_moved("BACKUPS", state / "backups" if followed else standard.backups),
    )


def _system() -> Layout:
    state = Path("/var/lib/vmhost")
    return Layout(
        state=state,
        runtime=Path("/run/vmhost"),
        config=Path("/etc/vmhost"),
        images=state / "images",
        disks=state / "disks",
        logs=Path("/var/log/vmhost"),
        backups=state / "backups",
    )


def _session() -> Layout:
    # Imported here: the system's layout, and with it every helper, needs none of it.
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("vmhost", appauthor=False)
    return Layout(
        state=dirs.user_state_path,
        # Not $XDG_RUNTIME_DIR: cron and sudo do not set it, and two processes with different lock files would not
        # exclude each other. A lock is released by the kernel, so it needs no tmpfs.
        runtime=dirs.user_state_path / "run",
        config=dirs.user_config_path,
        images=dirs.user_data_path / "images",
        disks=dirs.user_data_path / "disks",
        logs=dirs.user_log_path,
        backups=dirs.user_data_path / "backups",
    )


def _moved(part: str, standard: Path) -> Path:
    variable = f"VMHOST_{part}_DIR"
    text = os.environ.get(variable)
    if not text:
        return standard
    if not text.startswith("/"):
        raise UsageError(f"{text!r} is not an absolute path", subject=variable, hint=f"unset {variable}")
    return Path(text)


def lock_directory(layout: Layout) -> Path:
    """Make and return the directory of the locks (0700)."""
    make_directory(layout.runtime)
    return make_private_directory(layout.runtime / "locks")


def journal_directory(layout: Layout) -> Path:
    """Make and return the directory of the journals (0700)."""
    make_directory(layout.state)
    return make_private_directory(layout.state / "journal")


def key_directory(layout: Layout) -> Path:
    """Make and return the directory of the sites' own SSH keys (0700)."""
    make_directory(layout.state)
    return make_private_directory(layout.state / "keys")


def image_directory(layout: Layout) -> Path:
    """Make and return the directory of the images (0755: QEMU runs as a user of its own and reads them)."""
    return make_directory(layout.images)
