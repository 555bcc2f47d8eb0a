"""What the host and its QEMU can do (https://libvirt.org/formatcaps.html, https://libvirt.org/formatdomaincaps.html)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from vmhost.render.document import read
from vmhost.render.parse.units import int_of, size_of


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The hardware. ``memory`` in bytes; ``machines`` are the machine types of the host's own architecture."""

    architecture: str
    cpus: int
    memory: int
    machines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DomainCapabilities:
    """What a guest may have; everything is empty for a hypervisor that does not say.

    ``machines`` holds the machine type that was asked about, by its full name; ``uefi`` is whether libvirt selects UEFI
    firmware by itself; ``cpu_modes`` are the supported modes of ``<cpu>``.
    """

    type: str = ""
    emulator: str = ""
    machines: tuple[str, ...] = ()
    uefi: bool = False
    cpu_modes: tuple[str, ...] = ()
    max_vcpus: int = 0


@lru_cache(maxsize=4)  # it is asked for at every look, and changes hardly ever
def parse_capabilities(xml: str) -> HostFacts:
    """Return the hardware of the host. CPUs and memory are summed over its NUMA cells.

    :raises DamagedData: it is not well-formed XML.
    """
    root = read(xml)
    architecture = root.findtext("host/cpu/arch", "")
    cells = root.findall("host/topology/cells/cell")
    machines = [
        machine.get("canonical") or machine.text or ""
        for guest in root.findall("guest")
        for arch in guest.findall("arch")
        if guest.findtext("os_type") == "hvm" and arch.get("name") == architecture
        for machine in arch.findall("machine")
    ]
    return HostFacts(
        architecture=architecture,
        cpus=sum(int_of(cpus.get("num")) for cell in cells for cpus in cell.findall("cpus")),
        memory=sum(size_of(cell.find("memory"), "KiB") for cell in cells),
        machines=tuple(sorted(set(filter(None, machines)))),
    )


@lru_cache(maxsize=4)
def parse_domain_capabilities(xml: str) -> DomainCapabilities:
    """Return what a guest may have; an empty text gives empty capabilities.

    :raises DamagedData: it is not well-formed XML.
    """
    if not xml:
        return DomainCapabilities()
    root = read(xml)
    firmware = {value.text for value in root.findall("os/enum[@name='firmware']/value")}
    machine = root.findtext("machine", "")
    vcpu = root.find("vcpu")
    return DomainCapabilities(
        type=root.findtext("domain", ""),
        emulator=root.findtext("path", ""),
        machines=(machine,) if machine else (),
        uefi="efi" in firmware,
        cpu_modes=tuple(mode.get("name", "") for mode in root.findall("cpu/mode[@supported='yes']")),
        max_vcpus=0 if vcpu is None else int_of(vcpu.get("max")),
    )
