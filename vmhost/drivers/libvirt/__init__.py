"""libvirt: the only package of vmhost that imports it.

Importing it costs what ``import libvirt`` costs; libvirt's event loop starts with the first ``subscribe``.
"""

from __future__ import annotations

from vmhost.drivers.libvirt.hypervisor import LibvirtHypervisor, connect

__all__ = ["LibvirtHypervisor", "connect"]
