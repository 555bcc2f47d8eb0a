"""vmhost: libvirt guests on one host, from a site file to running guests.

Public names are imported on first use, so that ``import vmhost`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.model.plan import Plan
    from vmhost.model.spec import Site
    from vmhost.ops.host import Host, connect
    from vmhost.ops.sites import load_site

__version__ = "0.1.0"
__all__ = ["Host", "Plan", "Site", "VmhostError", "__version__", "connect", "load_site"]

_PLACES = {
    "Host": "vmhost.ops.host",
    "Plan": "vmhost.model.plan",
    "Site": "vmhost.model.spec",
    "VmhostError": "vmhost.model.errors",
    "connect": "vmhost.ops.host",
    "load_site": "vmhost.ops.sites",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'vmhost' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
