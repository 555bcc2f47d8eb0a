"""The systemd unit that makes the kept networks anew at every boot (systemd.unit(5), systemd.service(5))."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vmhost.drivers.files import make_directory, os_errors, write_atomically
from vmhost.model.errors import AlreadyThere, DriverError

NAME: Final = "vmhost-network.service"
FILE: Final = Path("/etc/systemd/system") / NAME
_SYSTEMD: Final = Path("/run/systemd/system")
_MARK: Final = "# vmhost: makes the networks of its sites anew at boot; written and removed by vmhost"

# Sockets start before basic.target, which an ordinary unit comes after: without DefaultDependencies=no, being before
# libvirt's sockets would be a circle.
_UNIT: Final = """\
{mark}
[Unit]
Description=Bridges, uplinks and VLANs of vmhost
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service systemd-udevd.service network-pre.target
Wants=network-pre.target
Before=network.target libvirtd.service virtqemud.service
Before=libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket
Before=virtqemud.socket virtqemud-ro.socket virtqemud-admin.socket
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists={kept}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command}
TimeoutStartSec=90

[Install]
WantedBy=multi-user.target
"""


def has_systemd() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return _SYSTEMD.is_dir()


def unit(kept: Path) -> str:
    """Return the unit as this installation of vmhost writes it; ``kept`` is the file of the kept networks."""
    from vmhost.drivers.netkeeper import helper

    command = " ".join(_quoted(word) for word in helper("boot", str(kept)))
    return _UNIT.format(mark=_MARK, kept=str(kept).replace("%", "%%"), command=command)


def _quoted(word: str) -> str:
    """Return a word as systemd.service(5) reads it on a command line."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def is_installed(kept: Path) -> bool:
    """Whether the unit is there as this installation writes it."""
    try:
        with os_errors(FILE, "read"):
            return FILE.read_text() == unit(kept)
    except DriverError:
        return False


def install(kept: Path) -> None:
    """Write and enable the unit. :raises AlreadyThere: another's has its name. :raises DriverError: systemd says no."""
    from vmhost.drivers.command import run

    _check_ours()
    make_directory(FILE.parent)
    write_atomically(FILE, unit(kept).encode(), mode=0o644)
    run(["systemctl", "daemon-reload"], timeout=60)
    run(["systemctl", "enable", "--quiet", NAME], timeout=60)


def remove() -> None:
    """Disable and remove the unit. :raises AlreadyThere: it is another's."""
    from vmhost.drivers.command import run

    _check_ours()
    if not FILE.exists():
        return
    run(["systemctl", "disable", "--quiet", NAME], timeout=60)
    with os_errors(FILE, "remove"):
        FILE.unlink(missing_ok=True)
    run(["systemctl", "daemon-reload"], timeout=60)


def _check_ours() -> None:
    if FILE.exists() and _MARK not in FILE.read_text(errors="replace").splitlines():
        raise AlreadyThere("it is not vmhost's", subject=str(FILE), hint=f"mv {FILE} {FILE}.old")
