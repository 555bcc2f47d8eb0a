"""Names, sizes, CPU sets and hardware addresses as values, checked where they enter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

NAME_RULE: Final = "a letter or digit, then up to 62 letters, digits, '.', '_' or '-'"
SHOWN: Final = 60
NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
LINK_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"
LINK_RULE: Final = "at most 15 letters, digits, '.', '_' or '-', a letter or digit first"
_HOSTNAME_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,3})")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_DURATIONS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_AGES: Final = {"": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_RATES: Final = {"k": 10**3, "m": 10**6, "g": 10**9}
LARGEST_SIZE: Final = 1 << 60

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30


def shown(value: object) -> str:
    """Return a value from a file as a message may show it: quoted, on one line, short, safe for a terminal.

    Control characters, line breaks and characters that turn the direction of text are escaped.
    """
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}...")
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return repr(value)[:SHOWN]


def check_name(text: str) -> str:
    """Return ``text`` when it may name a guest, network, image, profile or pool.

    libvirt accepts far more, and harms other guests with ``.`` and ``..``; so the rule is enforced at our edge.

    :raises ValueError: with the rule in words.
    """
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(f"{shown(text)} is not a name: {NAME_RULE}")
    return text


def check_link_name(text: str) -> str:
    """Return ``text`` when it may name a network link: at most 15 bytes (``IFNAMSIZ`` of the kernel less its NUL).

    :raises ValueError: with the rule in words.
    """
    if not re.fullmatch(LINK_PATTERN, text):
        raise ValueError(f"{shown(text)} is not a link name: {LINK_RULE}")
    return text


def hostname_of(name: str) -> str:
    """Return the host name (RFC 1123 label) for a guest name: ``_`` and ``.`` become ``-``.

    :raises ValueError: when the name cannot become a label, as ``a-`` cannot.
    """
    label = re.sub(r"[._]", "-", name)
    if not _HOSTNAME_LABEL.fullmatch(label):
        raise ValueError(f"{shown(name)} cannot be a host name: it must begin and end with a letter or digit")
    return label


def parse_size(text: str | int) -> int:
    """Return bytes for a size as virsh reads it: ``4G``, ``4GiB`` = 4 x 2**30, ``4GB`` = 4 x 10**9, ``512`` = 512.

    :raises ValueError: for an unknown unit, zero, a negative number, or more than 1 EiB.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if isinstance(text, bool) or match is None:
        raise ValueError(f"{shown(str(text))} is not a size: write for example 512M, 4G or 4GB (decimal)")
    number, unit = match.groups()
    value = int(float(number) * _multiplier(unit)) if "." in number else int(number) * _multiplier(unit)
    if not 0 < value <= LARGEST_SIZE:
        raise ValueError(f"{shown(str(text))} is out of range: a size is more than 0 and at most 1 EiB")
    return value


def _multiplier(unit: str) -> int:
    upper = unit.upper()
    letter = upper[:1] if upper != "B" else ""
    tail = upper[1:] if upper != "B" else ""
    if letter not in _POWERS or tail not in ("", "B", "IB") or (letter == "" and tail):
        raise ValueError(f"unknown unit {unit!r}: use K, M, G, T, P (powers of 1024) or KB, MB, GB (powers of 1000)")
    return int((1000 if tail == "B" else 1024) ** _POWERS[letter])


def format_size(size: int) -> str:
    """Return bytes in the largest binary unit that keeps it short: ``4G``, ``1.5G``, ``512M``, ``700``."""
    for unit, power in (("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        whole = 1024**power
        if size >= whole:
            return f"{size // whole}{unit}" if size % whole == 0 else f"{size / whole:.1f}{unit}"
    return str(size)


def parse_duration(text: str | int | float) -> float:
    """Return seconds for ``90``, ``90s``, ``5m`` or ``1h``.

    :raises ValueError: for anything else, for zero and for more than a day.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smh]?)", str(text).strip())
    if isinstance(text, bool) or match is None:
        raise ValueError(f"{shown(str(text))} is not a duration: write for example 90s, 5m or 1h")
    seconds = float(match.group(1)) * _DURATIONS[match.group(2)]
    if not 0 < seconds <= 86400:
        raise ValueError(f"{shown(str(text))} is out of range: a duration is more than 0 and at most 24h")
    return seconds


def parse_age(text: str | int | float) -> float:
    """Return seconds for ``90m``, ``26h``, ``7d`` or ``4w``; a number is seconds.

    :raises ValueError: for anything else, below a minute and above ten years.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([mhdw]?)", str(text).strip())
    if isinstance(text, bool) or match is None or (isinstance(text, str) and not match.group(2)):
        raise ValueError(f"{shown(str(text))} is not an age: write for example 90m, 26h, 7d or 4w")
    seconds = float(match.group(1)) * _AGES[match.group(2)]
    if not 60 <= seconds <= 3653 * 86400:
        raise ValueError(f"{shown(str(text))} is out of range: an age is 1m to 3653d")
    return seconds


def parse_rate(text: str | int) -> int:
    """Return bits a second for a rate with its unit: ``10Mbit`` is 10,000,000, ``2.5Gbit``, ``500kbit``.

    :raises ValueError: for another form, also without the unit, below 64 kbit/s and above 1,000 Gbit/s.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([kKmMgG])bit(?:/s)?", str(text).strip())
    if match is None:
        raise ValueError(f"{shown(text)} is not a rate: write for example 10Mbit, 2.5Gbit or 500kbit (per second)")
    rate = round(float(match.group(1)) * _RATES[match.group(2).lower()])
    if not 64_000 <= rate <= 1_000_000_000_000:
        raise ValueError(f"{shown(text)} is out of range: a rate is 64kbit to 1000Gbit")
    return rate


def format_rate(rate: int) -> str:
    """Return bits a second in the largest unit that keeps it short: ``10Mbit``, ``2.5Gbit``; of 0, ``no limit``."""
    if not rate:
        return "no limit"
    # The largest unit that says it exactly with three digits after the point.
    fitting = (pair for pair in (("G", 10**9), ("M", 10**6)) if rate >= pair[1] and rate * 1000 % pair[1] == 0)
    unit, size = next(fitting, ("k", 1000))
    return f"{rate / size:.3f}".rstrip("0").rstrip(".") + f"{unit}bit"


def parse_mac(text: str) -> str:
    """Return a unicast MAC address in lower case with colons.

    :raises ValueError: for another form, all zeros, and a group address (IEEE 802: bit 0 of octet 0 is the group bit).
    """
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"{shown(text)} is not a MAC address: write for example 52:54:00:12:34:56")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError(f"{mac} is not a unicast MAC address")
    return mac


def parse_cpuset(text: str) -> frozenset[int]:
    """Return the CPUs that libvirt's cpuset syntax names: ``0-3,^2,8`` is 0, 1, 3 and 8.

    :raises ValueError: for another form, a reversed range or a CPU above 4095.
    """
    chosen: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\^?)([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if match is None:
            raise ValueError(f"{shown(text)} is not a CPU set: write for example 0-3,8 or 0-7,^2")
        first = int(match.group(2))
        last = int(match.group(3) or first)
        if last < first or last > 4095:
            raise ValueError(f"{part!r} is not a range of CPUs from 0 to 4095")
        numbers = range(first, last + 1)
        if match.group(1):
            chosen.difference_update(numbers)
        else:
            chosen.update(numbers)
    return frozenset(chosen)


def format_cpuset(cpus: Iterable[int]) -> str:
    """Return numbers as libvirt writes a CPU set: ``0-3,8``; empty for none."""
    runs: list[list[int]] = []
    for number in sorted(set(cpus)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_vid(value: int) -> int:
    """Return a VLAN id from 1 to 4094 (IEEE 802.1Q: 0 is priority-tagged, 4095 reserved).

    :raises ValueError: outside that range.
    """
    if isinstance(value, bool) or not 1 <= value <= 4094:
        raise ValueError(
            f"{shown(value)} is not a VLAN id: IEEE 802.1Q allows 1 to 4094 (0 means no VLAN, 4095 is reserved)"
        )
    return value


def parse_vid_range(text: str) -> tuple[int, int]:
    """Return the first and last VLAN id of ``1000-1999``.

    :raises ValueError: for another form, a reversed range, or ids that IEEE 802.1Q does not allow.
    """
    match = re.fullmatch(r"([0-9]{1,9})\s*-\s*([0-9]{1,9})", text.strip())
    if match is None:
        raise ValueError(f"{shown(text)} is not a range of VLAN ids: write for example 1000-1999")
    first, last = (int(group) for group in match.groups())
    if not all(1 <= vid <= 4094 for vid in (first, last)):
        raise ValueError(
            f"{shown(text)} is not a range of VLAN ids: a tag of IEEE 802.1Q has 12 bits for the id, and of its values "
            "0 (no VLAN) and 4095 (reserved) name no VLAN, so they are 1 to 4094"
        )
    if last < first:
        raise ValueError(f"{shown(text)} is reversed: write {last}-{first}")
    return first, last


def parse_ip(text: str) -> str:
    """Return an IPv4 or IPv6 address in its usual form.

    :raises ValueError: for anything else, and for an IPv6 address with a zone (``%eth0``), a name of this host alone.
    """
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IP address: write for example 10.20.0.11") from None
    if "%" in text:
        raise ValueError(f"{shown(text)} has a zone: write the address alone")
    return str(address)


def parse_subnet(text: str) -> str:
    """Return a subnet such as ``10.20.0.0/24``.

    :raises ValueError: for another form, and for host bits after the prefix.
    """
    import ipaddress

    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a subnet: write for example 10.20.0.0/24") from None
    if "/" not in text:
        raise ValueError(f"{shown(text)} lacks its prefix length: write for example {network.network_address}/24")
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f"{shown(text)} has host bits set: its subnet is {network}")
    return str(network)


def parse_interface(text: str) -> str:
    """Return an address with its prefix length, ``10.0.0.1/24``, checked to be a host address of its subnet.

    :raises ValueError: for another form, the network's own address or its broadcast address.
    """
    import ipaddress

    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is not an address with its prefix length: write for example 10.0.0.1/24"
        ) from None
    network = interface.network
    if "/" not in text:
        raise ValueError(f"{shown(text)} lacks its prefix length: write for example {interface.ip}/24")
    if network.prefixlen < network.max_prefixlen - 1 and interface.ip in (network[0], network[-1]):
        raise ValueError(f"{shown(text)} is not a host address: it is the first or last address of {network}")
    return str(interface)
