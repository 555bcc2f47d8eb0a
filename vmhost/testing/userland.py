"""The inside of a fake guest as services see it: packages, files, accounts, units, and the programs for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from vmhost.testing.commands import Inside, Program, Ran
from vmhost.testing.world import FakeUnit, Userland

ROOT: Final = "root:root"


@dataclass(frozen=True, slots=True)
class Offer:
    """A package of the fake mirror: its versions, the newest last, its unit, the ports of that, its files."""

    versions: tuple[str, ...]
    unit: str = ""
    ports: tuple[int, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()


MIRROR: Final[dict[str, Offer]] = {
    "nginx": Offer(
        ("1.22.1-9", "1.26.3-1"), "nginx.service", (80,), (("/etc/nginx/nginx.conf", b"events {}\nhttp {}\n"),)
    ),
    "postgresql": Offer(("15+248",), "postgresql.service", (5432,)),
    "prometheus-node-exporter": Offer(("1.5.0-1+b6",), "prometheus-node-exporter.service", (9100,)),
    "redis-server": Offer(("5:7.0.15-1",), "redis-server.service", (6379,)),
    "curl": Offer(("7.88.1-10",)),
}


def _fail(text: str, code: int = 1) -> Ran:
    return Ran(stderr=f"{text}\n".encode(), exit_code=code)


def _after(arguments: Sequence[str]) -> list[str]:
    """Return what follows ``--``."""
    words = list(arguments)
    return words[words.index("--") + 1 :] if "--" in words else [word for word in words if not word.startswith("-")]


def _dpkg_query(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    land = inside.system.land
    out, missing = "", ""
    for name in _after(arguments):
        if name in land.packages:
            out += f"{name}\t{land.packages[name]}\tinstalled\n"
        else:
            missing += f"dpkg-query: no packages found matching {name}\n"
    return Ran(out.encode(), missing.encode(), 1 if missing else 0)


def _env(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
    words = list(arguments)
    while words and "=" in words[0] and not words[0].startswith("-"):
        words.pop(0)
    if not words or words[0] != "apt-get":
        return _fail("env: only apt-get is here", 127)
    if inside.user != "root":
        return _fail("E: Could not open lock file - open (13: Permission denied)", 100)
    if "update" in words:
        return Ran()
    return _install(inside, _after(words))


def _apt_cache(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    lines = [
        f" {name} | {version} | http://mirror.example bookworm/main amd64 Packages\n"
        for name in _after(arguments)
        for version in reversed(MIRROR[name].versions if name in MIRROR else ())
    ]
    return Ran("".join(lines).encode())


def _install(inside: Inside, wanted: list[str]) -> Ran:
    chosen = {}
    for item in wanted:
        name, _, version = item.partition("=")
        offer = MIRROR.get(name)
        if offer is None:
            return _fail(f"E: Unable to locate package {name}", 100)
        if version and version not in offer.versions:
            return _fail(f"E: Version '{version}' for '{name}' was not found", 100)
        chosen[name] = version or offer.versions[-1]
    for name, version in chosen.items():
        offer = MIRROR[name]
        inside.system.land.packages[name] = version
        for path, text in offer.files:
            if path not in inside.system.files:
                _write(inside, path, text, "0644", ROOT)
        if offer.unit:
            unit = inside.system.land.units.setdefault(offer.unit, FakeUnit())
            unit.enabled, unit.ports = "enabled", list(offer.ports)
            _activate(unit)
    return Ran()


def _remove(inside: Inside, name: str, *, purge: bool) -> None:
    land = inside.system.land
    land.packages.pop(name, None)
    offer = MIRROR.get(name)
    if offer is not None and offer.unit:
        land.units.pop(offer.unit, None)
    for path, _ in offer.files if offer is not None and purge else ():
        inside.system.files.pop(path, None)


def _activate(unit: FakeUnit) -> None:
    unit.starts += 1
    unit.active, unit.failed = not unit.broken, unit.broken


def _write(inside: Inside, path: str, data: bytes, mode: str, owner: str) -> None:
    inside.system.land.links.pop(path, None)
    inside.system.files[path] = data
    inside.system.land.access[path] = f"{mode} {owner}"


def _stat(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    land = inside.system.land
    out = err = ""
    for path in _after(arguments):
        access = land.access.get(path, f"0644 {ROOT}").split(" ")
        if path in inside.system.files:
            data = inside.system.files[path]
            kind = "regular file" if data else "regular empty file"
            out += f"{kind}\t{access[0].lstrip('0') or '0'}\t{access[1]}\t{len(data)}\t{path}\0"
        elif path in land.links:
            out += f"symbolic link\t777\t{ROOT}\t{len(land.links[path])}\t{path}\0"
        elif path in land.directories:
            out += f"directory\t{access[0].lstrip('0')}\t{access[1]}\t4096\t{path}\0"
        else:
            err += f"stat: cannot statx '{path}': No such file or directory\n"
    return Ran(out.encode(), err.encode(), 1 if err else 0)


def _readlink(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    links = inside.system.land.links
    return Ran("".join(f"{links[path]}\0" for path in _after(arguments) if path in links).encode())


def _ln(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    target, path = _after(arguments)
    inside.system.files.pop(path, None)
    inside.system.land.links[path] = target
    return Ran()


def _sha256sum(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    out = "".join(
        f"{sha256(inside.system.files[path]).hexdigest()}  {path}\0"
        for path in _after(arguments)
        if path in inside.system.files
    )
    return Ran(out.encode())


def _cat(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
    paths = _after(arguments)
    if not paths:
        return Ran(data)
    out = b""
    for path in paths:
        if path not in inside.system.files:
            return Ran(out, f"cat: {path}: No such file or directory\n".encode(), 1)
        out += inside.system.files[path]
    return Ran(out)


def _getent(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    base, *names = arguments
    lines = inside.system.land.users if base == "passwd" else inside.system.land.groups
    found = [lines[name] for name in names if name in lines]
    return Ran("".join(f"{line}\n" for line in found).encode(), b"", 0 if len(found) == len(names) else 2)


def _useradd(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    words, name = list(arguments), arguments[-1]
    home, shell = words[words.index("--home-dir") + 1], words[words.index("--shell") + 1]
    inside.system.land.users[name] = f"{name}:x:999:999::{home}:{shell}"
    if "--user-group" in words:
        inside.system.land.groups[name] = f"{name}:x:999:"
    return Ran()


def _userdel(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    gone = inside.system.land.users.pop(arguments[-1], None)
    inside.system.land.groups.pop(arguments[-1], None)
    return Ran() if gone else _fail(f"userdel: user '{arguments[-1]}' does not exist", 6)


def _groupadd(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    inside.system.land.groups[arguments[-1]] = f"{arguments[-1]}:x:998:"
    return Ran()


def _groupdel(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    gone = inside.system.land.groups.pop(arguments[-1], None)
    return Ran() if gone else _fail(f"groupdel: group '{arguments[-1]}' does not exist", 6)


def _install_directory(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    words, path = list(arguments), arguments[-1]
    mode, user, group = (words[words.index(flag) + 1] for flag in ("-m", "-o", "-g"))
    if path not in inside.system.land.directories:
        inside.system.land.directories.append(path)
    inside.system.land.access[path] = f"{mode} {user}:{group}"
    return Ran()


def _rmdir(inside: Inside, path: str) -> Ran:
    if path not in inside.system.land.directories:
        return Ran()
    if any(name.startswith(f"{path}/") for name in inside.system.files):
        return _fail(f"rmdir: failed to remove '{path}': Directory not empty")
    inside.system.land.directories.remove(path)
    return Ran()


def _rm(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    for path in _after(arguments):
        inside.system.files.pop(path, None)
        inside.system.land.links.pop(path, None)
    return Ran()


def _grep(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    values = inside.system.land.sysctl
    found = [(path, values[path]) for path in _after(arguments) if path in values]
    return Ran("".join(f"{path}:{value}\n" for path, value in found).encode(), b"", 0 if found else 2)


def _systemctl(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    land, names = inside.system.land, _after(arguments)
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb == "daemon-reload":
        made = [path.rsplit("/", 1) for path in inside.system.files]
        for directory, unit_name in made:
            if directory == "/etc/systemd/system":
                land.units.setdefault(unit_name, FakeUnit(enabled="disabled"))
        return Ran()
    if verb == "show":
        return Ran("\n".join(_shown(name, land) for name in names).encode())
    unit = land.units.get(names[0])
    if unit is None:
        return _fail(f"Failed to {verb} {names[0]}: Unit {names[0]} not found.", 5)
    if verb in ("enable", "disable"):
        unit.enabled = f"{verb}d"
    elif verb == "stop":
        unit.active = unit.failed = False
    else:
        _activate(unit)
        if not unit.active:
            return _fail(f"Job for {names[0]} failed because the control process exited with error code.")
    return Ran()


def _shown(name: str, land: Userland) -> str:
    unit = land.units.get(name)
    if unit is None:
        return f"Id={name}\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n"
    active, sub, result = "inactive", "dead", "success"
    if unit.active:
        active, sub = "active", "running"
    elif unit.failed:
        active, sub, result = "failed", "failed", "signal"
    since = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(1_767_225_600))
    pid = 1000 + unit.starts if unit.active else 0
    return (
        f"Id={name}\nLoadState=loaded\nActiveState={active}\nSubState={sub}\nUnitFileState={unit.enabled}\n"
        f"MainPID={pid}\nNRestarts=0\nResult={result}\nStateChangeTimestamp={since}\nNeedDaemonReload=no\n"
    )


def _sh(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
    """Vmhost's own scripts by their names; everything else is for the usual table."""
    name, rest = (arguments[2], arguments[3:]) if len(arguments) > 2 else ("", ())
    if name == "vmhost-put":
        return _put(inside, rest, data)
    if name == "vmhost-remove":
        for package in rest[2:]:
            _remove(inside, package, purge=rest[0] == "purge")
        return Ran()
    if name == "vmhost-rmdir":
        return _rmdir(inside, rest[0])
    if name == "vmhost-own":
        inside.system.land.access[rest[0]] = f"{rest[1]} {rest[2]}"
        return Ran()
    if name == "vmhost-sysctl":
        inside.system.land.sysctl[rest[0]] = rest[1]
        return Ran()
    from vmhost.testing.commands import ask_shell

    return ask_shell(inside, arguments, data)


def _put(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
    path, mode, owner, size, _, *check = arguments
    if len(data) != int(size):
        return _fail("the connection ended in the middle of it")
    if inside.system.land.full:
        return _fail("cat: write error: No space left on device")
    if check and b"broken" in data:
        return _fail(f"{check[0]}: the file is broken", 65)
    _write(inside, path, data, mode, owner)
    return Ran()


def _journalctl(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    return Ran("".join(f"{line}\n" for line in inside.system.land.journal).encode())


USERLAND: Final[dict[str, Program]] = {
    "apt-cache": _apt_cache,
    "cat": _cat,
    "dpkg-query": _dpkg_query,
    "env": _env,
    "getent": _getent,
    "grep": _grep,
    "groupadd": _groupadd,
    "groupdel": _groupdel,
    "install": _install_directory,
    "journalctl": _journalctl,
    "ln": _ln,
    "readlink": _readlink,
    "rm": _rm,
    "sh": _sh,
    "sha256sum": _sha256sum,
    "stat": _stat,
    "systemctl": _systemctl,
    "useradd": _useradd,
    "userdel": _userdel,
}
