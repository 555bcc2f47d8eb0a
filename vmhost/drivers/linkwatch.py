"""Woken by the kernel when a link, or the VLANs of a port, change (rtnetlink(7), the multicast groups).

What has changed is not read from the messages: whoever is woken reads the whole anew, so a message that was lost
because many came at once (ENOBUFS) costs nothing.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread, current_thread
from typing import Final

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUPS: Final = (1, 33)  # RTNLGRP_LINK and RTNLGRP_BRVLAN of linux/rtnetlink.h; the latter since Linux 5.6


class LinkWatch:
    """Calls ``notify`` from a thread of its own after every change, until it is closed."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        # Without an address of its own it would count as the kernel's, which is not told what it does itself.
        self._socket.bind((0, 0))
        for group in _GROUPS:
            with suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = Thread(target=self._run, name="links", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; its thread is gone when this returns. Closing twice is fine."""
        if self._wake < 0:
            return
        os.eventfd_write(self._wake, 1)
        if self._thread is not current_thread():
            self._thread.join()
        os.close(self._wake)
        self._socket.close()
        self._wake = -1

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = {number for number, _ in poll.poll()}
            if self._wake in ready:
                return
            self._drain()
            self._notify()

    def _drain(self) -> None:
        while True:
            try:
                self._socket.recv(65536)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                return
