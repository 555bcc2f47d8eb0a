"""The events of one connection, in our words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import libvirt

from vmhost.drivers.libvirt.connection import Connection, Handle
from vmhost.drivers.libvirt.documents import agent_connected
from vmhost.drivers.libvirt.errors import skipping, translated
from vmhost.drivers.libvirt.loop import loop
from vmhost.ports import DomainEvent

MISSED: Final = "while libvirt was away"

_LIFECYCLE: Final = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: ("defined", ("added", "updated", "renamed", "from snapshot")),
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: ("undefined", ("removed", "renamed")),
    libvirt.VIR_DOMAIN_EVENT_STARTED: ("started", ("booted", "migrated", "restored", "from snapshot", "wakeup")),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: (
        "suspended",
        ("paused", "migrated", "I/O error", "watchdog", "restored", "from snapshot", "API error", "postcopy", "failed"),
    ),
    libvirt.VIR_DOMAIN_EVENT_RESUMED: ("resumed", ("unpaused", "migrated", "from snapshot", "postcopy", "failed")),
    libvirt.VIR_DOMAIN_EVENT_STOPPED: (
        "stopped",
        ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot"),
    ),
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: ("shutdown", ("finished", "by the guest", "by the host")),
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: ("suspended", ("to memory", "to disk")),
    libvirt.VIR_DOMAIN_EVENT_CRASHED: ("crashed", ("panicked", "crashloaded")),
}
_AGENT: Final = {
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED: "agent-connected",
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED: "agent-disconnected",
}
_OCCUPIED: Final = frozenset({libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_ERROR})
_KEEPALIVE: Final = (5, 3)  # seconds between questions, and unanswered ones until the connection counts as broken
_log = logging.getLogger(__name__)


class Stream:
    """Tells the events of one connection, from libvirt's thread, until it is closed or breaks.

    :param tell: called with each event; it must return at once and call nothing of libvirt.
    :param broken: called once, with the stream, when its connection breaks.
    :raises DriverError: libvirt gives no events.
    """

    def __init__(
        self, connection: Connection, tell: Callable[[DomainEvent], None], broken: Callable[[Stream], None]
    ) -> None:
        loop.start()
        self._tell = tell
        self._broken = broken
        self._handle, self._own = _connection_with_events(connection)
        with translated("events"):
            self._callbacks = [
                self._handle.domainEventRegisterAny(None, number, callback, None)
                for number, callback in (
                    (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
                    (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent),
                    (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
                )
            ]
            if self._own:
                self._handle.registerCloseCallback(self._on_close, None)

    def domains(self) -> dict[str, tuple[str, bool]]:
        """Name and activity of every domain by UUID."""
        with translated("events"):
            return {d.UUIDString(): (d.name(), bool(d.isActive())) for d in self._handle.listAllDomains(0)}

    def settled(self) -> bool:
        """Whether the daemon has reached all running guests; for a while after its start it has not."""
        with translated("events"):
            return not any(_occupied(domain) for domain in self._active())

    def agents(self) -> tuple[DomainEvent, ...]:
        """An event for every agent that is connected now."""
        with translated("events"):
            return tuple(
                DomainEvent(domain.UUIDString(), domain.name(), "agent-connected", MISSED)
                for domain in self._active()
                if _agent_connected(domain)
            )

    def close(self) -> None:
        """Take the callbacks back, as far as the connection still lives."""
        try:
            for number in self._callbacks:
                self._handle.domainEventDeregisterAny(number)
            if self._own:
                self._handle.unregisterCloseCallback()
        except libvirt.libvirtError as error:
            _log.debug("events were not taken back: %s", error)

    def _active(self) -> list[Any]:
        return list(self._handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE))

    def _on_lifecycle(self, _: Handle, domain: Any, event: int, detail: int, __: object) -> None:
        kind, details = _LIFECYCLE.get(event, ("", ()))
        if kind:
            text = details[detail] if detail < len(details) else ""
            self._tell(DomainEvent(domain.UUIDString(), domain.name(), kind, text))

    def _on_agent(self, _: Handle, domain: Any, state: int, __: int, ___: object) -> None:
        if state in _AGENT:
            self._tell(DomainEvent(domain.UUIDString(), domain.name(), _AGENT[state]))

    def _on_reboot(self, _: Handle, domain: Any, __: object) -> None:
        self._tell(DomainEvent(domain.UUIDString(), domain.name(), "rebooted"))

    def _on_close(self, _: Handle, __: int, ___: object) -> None:
        self._broken(self)


def _connection_with_events(connection: Connection) -> tuple[Handle, bool]:
    """Return a connection that gives events, and whether it is one of our own.

    A connection to a daemon gives them only if it was opened after the loop had started. A driver inside this process
    (libvirt's test driver) knows no keepalive and its domains exist on that one connection alone.
    """
    try:
        connection.handle.setKeepAlive(*_KEEPALIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return connection.handle, False
    handle = connection.another()
    with translated("events"):
        handle.setKeepAlive(*_KEEPALIVE)
    return handle, True


def _occupied(domain: Any) -> bool:
    state = libvirt.VIR_DOMAIN_CONTROL_OK
    with skipping(libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT):
        state = domain.controlInfo(0)[0]
    return state in _OCCUPIED


def _agent_connected(domain: Any) -> bool:
    xml = ""
    with skipping(libvirt.VIR_ERR_NO_DOMAIN):
        xml = domain.XMLDesc(0)
    return bool(xml) and agent_connected(xml)
