"""A throw-away hypervisor: libvirtd in namespaces of its own, with its own storage, network and state.

From outside::

    from vmhost import lab

    lab.up("try")                                # a few tenths of a second
    lab.execute("try", ["virsh", "list"])
    lab.down("try")                              # nothing of it is left

``docs/decisions/0020-lab.md`` tells what is private in a lab and what it shares with the machine.
"""

from __future__ import annotations

from vmhost.lab.control import (
    down,
    enter_shell,
    execute,
    labs,
    replace_by,
    restart_libvirtd,
    run_inside,
    up,
)
from vmhost.lab.enter import inside
from vmhost.lab.store import Kernel, Lab, Status, find, root

__all__ = [
    "Kernel",
    "Lab",
    "Status",
    "down",
    "enter_shell",
    "execute",
    "find",
    "inside",
    "labs",
    "replace_by",
    "restart_libvirtd",
    "root",
    "run_inside",
    "up",
]
