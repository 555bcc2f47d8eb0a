"""unshare(2) for this process: Python has it from 3.12 on."""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag


class Namespace(IntFlag):
    """The namespaces of a lab, with the kernel's numbers (sched.h, namespaces(7))."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    PID = 0x20000000
    NET = 0x40000000


def unshare(namespaces: Namespace) -> None:
    """Leave the namespaces that this process shares with its parent; of PID, the next child is PID 1.

    :raises OSError: the kernel refused; nothing has changed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(int(namespaces)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
