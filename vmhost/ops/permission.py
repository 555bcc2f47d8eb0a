"""Whether this process may change a hypervisor, and what lies beside it on this machine."""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING

from vmhost.model.errors import PermissionDenied, Refused

if TYPE_CHECKING:
    from vmhost.ports import Hypervisor

QEMU = "QEMU"
FAKE = "fake"


def check_runs(hypervisor: Hypervisor, name: str) -> None:
    """Return when the guests of a hypervisor are real ones: of others, no terminal is opened and no address called.

    :raises Refused: they are simulated, or of a fake host.
    """
    host = hypervisor.daemon()
    if host.simulated or host.driver == FAKE:
        text = "this guest is made up: there is nothing to attach to"
        raise Refused(text, subject=name, hint="vmhost lab up    # a hypervisor with real guests")


def check_may_change(hypervisor: Hypervisor) -> None:
    """Return when changes can be made safely: links, locks, images and keys are those of this machine.

    :raises Refused: the hypervisor is another machine's, or only simulated; :raises PermissionDenied: not root on the
        system's hypervisor.
    """
    host = hypervisor.daemon()
    if not host.local:
        text = "this hypervisor is on another machine: read-only from here"
        raise Refused(text, subject=host.uri, hint=f"ssh {quote(host.hostname)} vmhost ...")
    if host.driver not in (QEMU, FAKE):
        what = "a simulated hypervisor" if host.simulated else f"{host.driver}, which is not QEMU,"
        text = f"{what} is for looking only: bridges and images would be real"
        raise Refused(text, subject=host.uri, hint="vmhost lab up")
    if host.driver == QEMU and host.privileged and os.geteuid() != 0:
        raise PermissionDenied("changing the system's hypervisor needs root", subject=host.uri, hint="sudo vmhost ...")
