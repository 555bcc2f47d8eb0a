"""The examination of a host: each check is a small function from what was observed to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Final

from vmhost.engine.observe import observe
from vmhost.model.errors import UsageError
from vmhost.model.identity import NAMESPACE
from vmhost.model.observed import Observed
from vmhost.model.outcome import Finding
from vmhost.model.reservations import iso
from vmhost.model.units import GIB, format_size
from vmhost.ops.doctornet import examine_network
from vmhost.ops.doctorports import examine_ports
from vmhost.ports import Ports

OLDEST_LIBVIRT: Final = 9_000_000
STORAGE_WARNING: Final = 0.80
STORAGE_ERROR: Final = 0.95
SMALLEST_FREE: Final = 2 * GIB


@dataclass(frozen=True, slots=True)
class Examined:
    """What the checks look at."""

    observed: Observed
    ports: Ports


Check = Callable[[Examined], Iterator[Finding]]


def examine(ports: Ports, *, only: str | None = None) -> tuple[Finding, ...]:
    """Return every finding, good ones too, so that a person sees what was looked at.

    :param only: one area of :data:`CHECKS`.
    :raises UsageError: there is no such area.
    """
    if only is not None and only not in CHECKS:
        raise UsageError(f"there is no area {only!r}", subject="--only", hint=f"one of {', '.join(CHECKS)}")
    examined = Examined(observe(ports), ports)
    areas = (only,) if only else tuple(CHECKS)
    return tuple(finding for area in areas for finding in CHECKS[area](examined))


def _kvm(examined: Examined) -> Iterator[Finding]:
    host = examined.observed.host
    if host.kvm:
        yield Finding("kvm", "kvm", "ok", "KVM runs guests")
        return
    why = "guests are emulated: five to twenty times slower; /dev/kvm is missing, not ours, or does not run a guest"
    mend = "modprobe kvm_intel || modprobe kvm_amd; ls -l /dev/kvm"
    yield Finding("kvm", "kvm", "warning", "no usable KVM", why, mend)


def _versions(examined: Examined) -> Iterator[Finding]:
    version = examined.observed.host.libvirt_version
    words = f"libvirt {version // 1_000_000}.{version // 1000 % 1000}"
    if version >= OLDEST_LIBVIRT:
        yield Finding("libvirt-version", "versions", "ok", words)
    else:
        why = "vmhost is made for 9.0 and newer"
        yield Finding("libvirt-version", "versions", "error", f"{words} is too old", why, "apt upgrade libvirt-daemon")


def _storage(examined: Examined) -> Iterator[Finding]:
    for pool in examined.observed.pools:
        if not pool.active:
            why = "guests with disks in it cannot start"
            yield Finding(
                "pool-inactive",
                "storage",
                "warning",
                f"pool {pool.name} is not active",
                why,
                f"virsh pool-start {quote(pool.name)}",
            )
            continue
        if not pool.capacity:
            continue
        used = 1 - pool.available / pool.capacity
        title = f"pool {pool.name}: {format_size(pool.available)} free of {format_size(pool.capacity)}"
        if used > STORAGE_ERROR or pool.available < SMALLEST_FREE:
            why = "a full pool pauses its running guests"
            yield Finding("pool-full", "storage", "error", title, why, f"virsh vol-list --details {quote(pool.name)}")
        elif used > STORAGE_WARNING:
            why = f"more than {STORAGE_WARNING:.0%} is used; thin disks still grow"
            yield Finding(
                "pool-filling", "storage", "warning", title, why, f"virsh vol-list --details {quote(pool.name)}"
            )
        else:
            yield Finding("pool", "storage", "ok", title)


def _network(examined: Examined) -> Iterator[Finding]:
    yield from examine_network(examined.observed, examined.ports.links.kernel())
    yield from examine_ports(examined.observed, iso(examined.ports.clock.now()))


def _locks(examined: Examined) -> Iterator[Finding]:
    if examined.ports.journals.any_open():
        why = "a crash left it half done; commands that change anything settle it first"
        yield Finding("interrupted", "locks", "error", "an operation was interrupted", why, "vmhost recover")
    else:
        yield Finding("interrupted", "locks", "ok", "no operation was interrupted")


def _images(examined: Examined) -> Iterator[Finding]:
    images = examined.observed.images
    if images:
        yield Finding("images", "images", "ok", f"{len(images)} image{'' if len(images) == 1 else 's'}")
    else:
        why = "guests need an image for their root disk"
        yield Finding("images", "images", "info", "there are no images", why, "vmhost image build debian-12")


def _guests(examined: Examined) -> Iterator[Finding]:
    for domain in examined.observed.domains:
        metadata = domain.metadata
        if domain.copied:
            why = f"its definition is a copy of that of guest {domain.copied}, whose disks it names in its metadata"
            mend = f"virsh metadata {quote(domain.name)} {NAMESPACE} --remove --config"
            yield Finding(
                "guest-copied", "guests", "warning", f"{domain.name} is foreign and looks like ours", why, mend
            )
        if metadata and metadata.pending and domain.active:
            why = "its first boot was never seen to end well, so its seed still holds secrets"
            mend = f"vmhost apply SITE    # the file of site {metadata.site}"
            yield Finding(
                "guest-pending", "guests", "warning", f"guest {domain.name} is not confirmed ready", why, mend
            )


CHECKS: Final[dict[str, Check]] = {
    "kvm": _kvm,
    "versions": _versions,
    "storage": _storage,
    "network": _network,
    "locks": _locks,
    "images": _images,
    "guests": _guests,
}
