"""How a domain is held: its ``cputune``, ``memtune``, ``numatune`` and ``memoryBacking``, read back.

https://libvirt.org/formatdomain.html#cpu-tuning, #memory-tuning, #numa-node-tuning, #memory-backing
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from vmhost.model.tuning import FREE, PERIOD, Tuning
from vmhost.model.units import format_cpuset, parse_cpuset
from vmhost.render.parse.reading import look_into
from vmhost.render.parse.units import int_of, size_of

if TYPE_CHECKING:
    from vmhost.render.parse.reading import Node

_UNLIMITED: Final = 1 << 62
"""libvirt's word for no limit is 9007199254740988 KiB, or nothing at all."""
_SAID: Final = re.compile(r"<(?:cputune|memtune|numatune|memoryBacking|iothreads)\b|<vcpu [^>]*cpuset=")


def parse_tuning(xml: str | Node) -> Tuning:
    """Return how a domain is held; other periods than ours are converted.

    :raises DamagedData: it is not well-formed XML.
    """
    if isinstance(xml, str) and not _SAID.search(xml):
        return FREE  # which most are, and a document costs more to read than to search
    root = look_into(xml)
    memory = root.find("numatune/memory")
    page = root.find("memoryBacking/hugepages")
    return Tuning(
        pins=_pins(root),
        emulator=_cpus(_attribute(root, "cputune/emulatorpin", "cpuset") or _attribute(root, "vcpu", "cpuset")),
        shares=int_of(root.findtext("cputune/shares")),
        limit=_quota(root, "global_"),
        vcpu_limit=_quota(root, ""),
        emulator_limit=_quota(root, "emulator_"),
        hard_limit=_limit(root, "hard_limit"),
        swap_limit=_limit(root, "swap_hard_limit"),
        page=0 if page is None else size_of_page(page.find("page")),
        locked=root.find("memoryBacking/locked") is not None,
        cells="" if memory is None else _cpus(memory.get("nodeset", "")),
        cell_mode="" if memory is None else memory.get("mode", "strict"),
        iothreads=int_of(root.findtext("iothreads")),
        io=tuple(sorted(_io_pins(root))),
    )


def iothread_ids(xml: str) -> tuple[int, ...]:
    """Return the ids of a domain's I/O threads: those that it names, and the lowest others up to their number.

    :raises DamagedData: it is not well-formed XML.
    """
    if "<iothreads>" not in xml:
        return ()
    root = look_into(xml)
    named = {int_of(one.get("id")) for one in root.findall("iothreadids/iothread")}
    count = max(int_of(root.findtext("iothreads")), len(named))
    others = (number for number in range(1, count + 1) if number not in named)
    return tuple(sorted((*named, *islice(others, count - len(named)))))


def size_of_page(page: Node | None) -> int:
    """Return the bytes of a ``<page>``; without one libvirt takes the host's default, which is 2 MiB on x86."""
    return 2 << 20 if page is None else size_of_attribute(page)


def size_of_attribute(page: Node) -> int:
    """Return the bytes that ``size`` and ``unit`` say."""
    from vmhost.render.parse.units import scaled

    return scaled(page.get("size", ""), page.get("unit", "KiB"))


def _pins(root: Node) -> tuple[tuple[int, str], ...]:
    """Return the pins of all vCPUs; ``<vcpu cpuset=...>`` is that of those that have none of their own."""
    found = {int_of(pin.get("vcpu")): _cpus(pin.get("cpuset", "")) for pin in root.findall("cputune/vcpupin")}
    rest = _cpus(_attribute(root, "vcpu", "cpuset"))
    if rest:
        found = {**dict.fromkeys(range(int_of(root.findtext("vcpu")) or 1), rest), **found}
    return tuple(sorted(found.items()))


def _io_pins(root: Node) -> Iterator[tuple[int, str]]:
    for pin in root.findall("cputune/iothreadpin"):
        yield int_of(pin.get("iothread")), _cpus(pin.get("cpuset", ""))


def _attribute(root: Node, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def _cpus(text: str) -> str:
    """Return a set of numbers in one spelling; what cannot be read is none."""
    try:
        return format_cpuset(parse_cpuset(text)) if text else ""
    except ValueError:
        return ""


def _quota(root: Node, kind: str) -> int:
    quota = (root.findtext(f"cputune/{kind}quota") or "").strip()
    period = int_of(root.findtext(f"cputune/{kind}period")) or PERIOD
    return int_of(quota) * PERIOD // period


def _limit(root: Node, name: str) -> int:
    size = size_of(root.find(f"memtune/{name}"), "KiB")
    return 0 if size >= _UNLIMITED else size
