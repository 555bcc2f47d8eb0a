"""One connection to libvirt: how it is found, and how it is found again after the daemon was restarted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from threading import Lock
from time import monotonic
from typing import Any, Final, TypeVar

import libvirt

from vmhost.drivers.libvirt.errors import broken, start_command, translate, translated
from vmhost.model.errors import DriverError, PermissionDenied, Unreachable

SYSTEM: Final = "qemu:///system"
SESSION: Final = "qemu:///session"

Handle = Any  # libvirt.virConnect: libvirt-python ships neither stubs nor annotations that hold
T = TypeVar("T")

JUST_BEFORE: Final = 0.05
"""Seconds since its last answer for which a connection is known to work: no daemon is back so soon after its end."""


def open_by_rule(uri: str | None) -> tuple[Handle, str | None]:
    """Open and return a connection and the URI that opens the same one again.

    The given URI; else libvirt's own choice if ``LIBVIRT_DEFAULT_URI`` or ``uri_default`` made one
    (https://libvirt.org/uri.html); else the system's hypervisor if it answers, else the user's own.

    :raises Unreachable: nothing answers; :raises PermissionDenied: it does not let us in.
    """
    if uri or _libvirt_has_a_default():
        return open_uri(uri or None), uri or None
    try:
        return open_uri(SYSTEM), SYSTEM
    except (Unreachable, PermissionDenied) as refusal:
        if os.geteuid() == 0:
            raise
        try:
            return open_uri(SESSION), SESSION
        except DriverError:
            raise refusal from None


def open_uri(uri: str | None) -> Handle:
    """Open a connection; the URI goes to libvirt as it is, None lets libvirt choose."""
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise _not_opened(error, uri) from error


def _not_opened(error: libvirt.libvirtError, uri: str | None) -> DriverError:
    """A connection that cannot be opened is unreachable, whatever libvirt calls it, unless it was refused."""
    subject = uri or "libvirt"
    hint = start_command() if uri in (None, SYSTEM) else f"virsh --connect {quote(uri or '')} version"
    found = translate(error, subject, hint=hint)
    if isinstance(found, PermissionDenied):
        hint = f"sudo vmhost --connect {quote(uri or SYSTEM)} host doctor"
        return PermissionDenied(found.message, subject=subject, hint=hint)
    return Unreachable(found.message, subject=subject, hint=hint, retryable=found.retryable)


def _libvirt_has_a_default() -> bool:
    """Whether the environment or libvirt.conf of this user names a URI; which one is libvirt's own business."""
    if os.environ.get("LIBVIRT_DEFAULT_URI"):
        return True
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    directory = Path("/etc/libvirt") if os.geteuid() == 0 else home / "libvirt"
    try:
        text = (directory / "libvirt.conf").read_text(errors="replace")
    except OSError:
        return False
    return re.search(r"^[ \t]*uri_default[ \t]*=", text, re.MULTILINE) is not None


class Connection:
    """A connection that several threads may use and that survives a restart of the daemon.

    Reading calls are repeated once on a new connection when the old one breaks under them. Changing calls never are:
    the daemon may have done what it could not confirm, so they raise ``Unreachable``, and the caller looks.
    """

    def __init__(self, uri: str | None) -> None:
        self._lock = Lock()
        self._handle, self._uri = open_by_rule(uri)
        self._closed = False
        self._answered = (self._handle, monotonic())

    @property
    def handle(self) -> Handle:
        """The connection of libvirt itself, for callers that watch it for breaks themselves."""
        return self._handle

    def another(self) -> Handle:
        """Open a second connection to the same hypervisor."""
        return open_uri(self._uri)

    def read(self, call: Callable[[Handle], T], subject: str = "", *, asks: bool = True) -> T:
        """Return what ``call`` returns; it may run twice, so it changes nothing.

        :param asks: False: libvirt may know it without its daemon, so an answer does not say that this one is there.
        """
        handle = self._open_handle()
        try:
            return self._answer(call, handle, asks)
        except libvirt.libvirtError as error:
            if not _lost(error, handle):
                raise translate(error, subject) from error
        with translated(subject):
            return self._answer(call, self._renewed(handle), asks)

    def change(self, call: Callable[[Handle], T], subject: str = "") -> T:
        """Return what ``call`` returns; it runs once at most, on a connection that answered just before.

        :raises Unreachable: the connection broke inside the call; whether the change was done is not known.
        """
        if not self._works():
            self.read(_ping, subject)
        handle = self._open_handle()
        with translated(subject):
            return self._answer(call, handle)

    def _works(self) -> bool:
        """Whether the daemon answered just before, and nothing has been heard of its end since."""
        handle, at = self._answered
        return handle is self._handle and monotonic() - at <= JUST_BEFORE and not _lost_sight(handle)

    def _answer(self, call: Callable[[Handle], T], handle: Handle, asks: bool = True) -> T:
        answer = call(handle)
        if asks:
            self._answered = (handle, monotonic())
        return answer

    def close(self) -> None:
        """Close it; later calls raise ``Unreachable``."""
        with self._lock:
            self._closed = True
            self._handle = None

    def _open_handle(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise Unreachable("the connection was closed", subject=self._uri or "libvirt")
        return handle

    def _renewed(self, old: Handle) -> Handle:
        """Replace a broken connection, unless another thread has done so already."""
        with self._lock:
            if self._handle is old:
                self._handle = open_uri(self._uri)
        return self._open_handle()


def _ping(handle: Handle) -> None:
    handle.getLibVersion()


def _lost(error: libvirt.libvirtError, handle: Handle) -> bool:
    return broken(error) or error.get_error_code() == libvirt.VIR_ERR_INVALID_CONN or _lost_sight(handle)


def _lost_sight(handle: Handle) -> bool:
    """Whether libvirt itself has noticed that its daemon is gone; the daemon is not asked."""
    try:
        return not handle.isAlive()
    except libvirt.libvirtError:
        return True


def is_privileged(handle: Handle) -> bool:
    """Whether a connection is to the system's QEMU: ``qemu:///system``, however it is reached."""
    from urllib.parse import urlsplit

    return str(handle.getType()) == "QEMU" and urlsplit(str(handle.getURI())).path == "/system"
