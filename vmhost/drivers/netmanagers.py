"""Other programs that configure links by themselves, by the files in which they say so.

None of their commands is run: one that is not there, or hangs, must not delay a look at the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from configparser import ConfigParser, Error
from contextlib import suppress
from pathlib import Path
from typing import Final

from vmhost.model.network import LinkManager

_UNMANAGED: Final = frozenset({"unmanaged", "", "linger"})


def link_managers(links: Sequence[tuple[int, str]], root: Path = Path("/")) -> tuple[LinkManager, ...]:
    """Return who configures links, which are given with index and name; ``root`` stands for ``/``."""
    names = dict(links)
    return (*_networkd(names, root), *_network_manager(names, root), *_ifupdown(set(names.values()), root))


def _networkd(names: dict[int, str], root: Path) -> Iterator[LinkManager]:
    """A file for each link says what networkctl(1) shows; netplan writes the configuration that it names."""
    for index, name in names.items():
        facts = _facts(root / "run/systemd/netif/links" / str(index))
        if facts.get("ADMIN_STATE", "") in _UNMANAGED:
            continue
        if "netplan" in Path(facts.get("NETWORK_FILE", "")).name:
            yield LinkManager(name, "netplan", _netplan(name, root, "networkctl reload"))
            continue
        file = f"/etc/systemd/network/05-vmhost-{name}.network"
        write = rf"printf '[Match]\nName={name}\n[Link]\nUnmanaged=yes\n' >{file}"
        yield LinkManager(name, "systemd-networkd", (write, "networkctl reload"))


def _network_manager(names: dict[int, str], root: Path) -> Iterator[LinkManager]:
    """NetworkManager keeps a file for each device, whether it manages it or not."""
    if not (root / "run/NetworkManager").is_dir():
        return
    for index, name in names.items():
        parser = ConfigParser(interpolation=None, strict=False)
        with suppress(OSError, Error, UnicodeDecodeError):
            parser.read_string((root / "run/NetworkManager/devices" / str(index)).read_text())
        if parser.get("device", "managed", fallback="false") not in ("true", "1"):
            continue
        connection = parser.get("device", "connection-uuid", fallback="")
        if _named_by_netplan(connection, root):
            yield LinkManager(name, "netplan", _netplan(name, root, "nmcli connection reload"))
            continue
        file = f"/etc/NetworkManager/conf.d/90-vmhost-{name}.conf"
        write = rf"printf '[keyfile]\nunmanaged-devices+=interface-name:{name}\n' >{file}"
        yield LinkManager(
            name, "NetworkManager", (write, "nmcli general reload", f"nmcli device set {name} managed no")
        )


def _named_by_netplan(connection: str, root: Path) -> bool:
    for file in (root / "run/NetworkManager/system-connections").glob("netplan-*"):
        with suppress(OSError):
            if connection and connection in file.read_text(errors="replace"):
                return True
    return False


def _netplan(name: str, root: Path, reload: str) -> tuple[str, ...]:
    files = []
    for file in sorted((root / "etc/netplan").glob("*.yaml")):
        with suppress(OSError):
            if f"{name}:" in file.read_text(errors="replace"):
                files.append(f"/{file.relative_to(root)}")
    take = f"take '{name}:' with all below it out of {' and '.join(files) or '/etc/netplan/*.yaml'}"
    return (take, "netplan generate", reload)


def _ifupdown(names: set[str], root: Path) -> Iterator[LinkManager]:
    """ifup(8) notes what it has configured in its state file, ``lo=lo`` a line."""
    with suppress(OSError):
        for line in (root / "run/network/ifstate").read_text(errors="replace").splitlines():
            name = line.partition("=")[0].strip()
            if name in names:
                stanza = f"write 'iface {name} inet manual' in /etc/network/interfaces in the place of its stanza"
                yield LinkManager(name, "ifupdown", (stanza, f"sed -i '/^{name}=/d' /run/network/ifstate"))


def _facts(file: Path) -> dict[str, str]:
    with suppress(OSError):
        lines = (line.partition("=") for line in file.read_text(errors="replace").splitlines() if "=" in line)
        return {key: value for key, _, value in lines}
    return {}
