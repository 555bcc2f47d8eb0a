"""libvirt's errors in our classes, in libvirt's own words, with the command that helps.

Codes: https://libvirt.org/html/libvirt-virterror.html
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import libvirt

from vmhost.model.errors import Absent, AlreadyThere, DriverError, PermissionDenied, Silent, Unreachable

_ABSENT: Final = {
    libvirt.VIR_ERR_NO_DOMAIN: "vmhost guest list",
    libvirt.VIR_ERR_NO_STORAGE_POOL: "virsh pool-list --all",
    libvirt.VIR_ERR_NO_STORAGE_VOL: "virsh pool-list --all",
}
_THERE: Final = frozenset({libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_ERR_STORAGE_VOL_EXIST})
_DENIED: Final = frozenset(
    {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_OPERATION_DENIED,
    }
)
_SILENT: Final = frozenset({libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_RPC})
_PASSING: Final = frozenset({libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY})
_LONGEST: Final = 2000
"""Characters of an error's text."""
_DENIED_BY_SYSTEM: Final = frozenset({errno.EACCES, errno.EPERM})


@contextmanager
def translated(subject: str = "", *, hint: str = "") -> Iterator[None]:
    """Raise our error for libvirt's.

    :param subject: on what the calls inside act: a guest, pool or volume.
    :param hint: the command that helps; empty: one that fits the kind of error.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, subject, hint=hint) from error


@contextmanager
def skipping(*codes: int, system: Container[int] = ()) -> Iterator[None]:
    """Leave the block quietly when libvirt gives one of these codes: what was listed has gone meanwhile.

    :param system: numbers of system errors that mean the same.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        if not code_is(error, *codes) and system_errno(error) not in system:
            raise


def translate(error: libvirt.libvirtError, subject: str = "", *, hint: str = "") -> DriverError:
    """Return our error for libvirt's; ``retryable`` when the other side was silent or busy."""
    code = error.get_error_code()
    message = str(error).strip()
    if len(message) > _LONGEST:  # it may hold what a guest's agent said
        message = f"{message[:_LONGEST]}..."
    if code in _DENIED or _denied_by_system(error):
        return PermissionDenied(message, subject=subject, hint=hint or "sudo vmhost host doctor")
    if code in _SILENT or broken(error):
        return Unreachable(message, subject=subject, hint=hint or start_command(), retryable=True)
    if code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
        asked = f"vmhost guest exec {subject} -- systemctl status qemu-guest-agent"
        return Silent(message, subject=subject, hint=hint or asked, retryable=True)
    if code in _ABSENT:
        return Absent(message, subject=subject, hint=hint or _ABSENT[code])
    if code in _THERE:
        return AlreadyThere(message, subject=subject, hint=hint)
    return DriverError(message, subject=subject, hint=hint or "vmhost host doctor", retryable=code in _PASSING)


def broken(error: libvirt.libvirtError) -> bool:
    """Whether the connection broke: what libvirt's RPC client itself reports has never been an answer of the daemon."""
    return error.get_error_domain() == libvirt.VIR_FROM_RPC and not _denied_by_system(error)


def code_is(error: libvirt.libvirtError, *codes: int) -> bool:
    """Whether libvirt gave one of these codes."""
    return error.get_error_code() in codes


def system_errno(error: libvirt.libvirtError) -> int:
    """The errno behind an error of the system, else 0."""
    return int(error.get_int1()) if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR else 0


def start_command() -> str:
    """The command that starts the local daemon: one libvirtd, or virtqemud where libvirt is split into daemons."""
    return "systemctl start " + ("libvirtd" if Path("/usr/sbin/libvirtd").exists() else "virtqemud.socket")


def _denied_by_system(error: libvirt.libvirtError) -> bool:
    return system_errno(error) in _DENIED_BY_SYSTEM and error.get_error_domain() == libvirt.VIR_FROM_RPC


def _stay_silent(*_: object) -> None:
    """Keep stderr clean: libvirt would write every error there, and they reach us as exceptions anyway."""


libvirt.registerErrorHandler(_stay_silent, None)
