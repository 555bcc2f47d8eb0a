"""Questions to a guest, and what its answers mean: each pair asks for and reads one kind of fact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vmhost.model.guestops import GuestCommand
from vmhost.model.services import PathFact, UnitFact
from vmhost.render.guestcommands import sysctl_path

_KINDS: Final = {
    "regular file": "file",
    "regular empty file": "file",
    "directory": "directory",
    "symbolic link": "symlink",
}
_UNIT: Final = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "Result"),
    *("StateChangeTimestamp", "NeedDaemonReload"),
)


def ask_packages(names: Sequence[str]) -> GuestCommand:
    """Ask which packages are installed; unknown ones are told on stderr and by the exit code, which does not matter."""
    form = r"-f=${Package}\t${Version}\t${db:Status-Status}\n"
    return GuestCommand(("dpkg-query", "-W", form, "--", *names), sudo=False)


def read_packages(output: bytes) -> dict[str, str]:
    """Return installed packages with their versions; of those whose configuration alone is there, an empty one."""
    rows = (line.split("\t") for line in _lines(output))
    known = {row[0]: (row[1], row[2]) for row in rows if len(row) == 3 and row[2] != "not-installed"}
    return {name: version if status == "installed" else "" for name, (version, status) in known.items()}


def ask_versions(names: Sequence[str]) -> GuestCommand:
    """Ask which versions of packages the guest's mirrors hold."""
    return GuestCommand(("apt-cache", "madison", "--", *names), sudo=False)


def read_versions(output: bytes) -> dict[str, Sequence[str]]:
    """Return the versions of each package, the newest first, as apt orders them."""
    found: dict[str, list[str]] = {}
    for line in _lines(output):
        name, *rest = (part.strip() for part in line.split("|"))
        if len(rest) == 2 and rest[0] not in found.setdefault(name, []):
            found[name].append(rest[0])
    return {name: tuple(versions) for name, versions in found.items()}


def ask_paths(paths: Sequence[str]) -> GuestCommand:
    """Ask what lies at paths; absent ones are told on stderr."""
    return GuestCommand(("stat", r"--printf=%F\t%a\t%U:%G\t%s\t%n\0", "--", *paths))


def read_paths(output: bytes) -> dict[str, PathFact]:
    """Return what lies at each path."""
    found = {}
    for entry in output.decode("utf-8", "surrogateescape").split("\0"):
        kind, mode, owner, size, path = [*entry.split("\t", 4), "", "", "", ""][:5]
        if path and size.isdecimal():
            found[path] = PathFact(_KINDS.get(kind, "other"), mode.rjust(4, "0"), owner, int(size))
    return found


def ask_links(paths: Sequence[str]) -> GuestCommand:
    """Ask where symbolic links lead."""
    return GuestCommand(("readlink", "-z", "--", *paths))


def read_links(output: bytes, paths: Sequence[str]) -> dict[str, str]:
    """Return where each link leads; nothing when one of them is none any more."""
    targets = output.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return dict(zip(paths, targets, strict=True)) if len(targets) == len(paths) else {}


def ask_sums(paths: Sequence[str]) -> GuestCommand:
    """Ask for the SHA-256 of files."""
    return GuestCommand(("sha256sum", "-z", "--", *paths), timeout=120.0)


def read_sums(output: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    entries = output.decode("utf-8", "surrogateescape").split("\0")
    return {entry[66:]: entry[:64] for entry in entries if len(entry) > 66}


def ask_text(path: str) -> GuestCommand:
    """Ask for a file's content."""
    return GuestCommand(("cat", "--", path))


def ask_users(names: Sequence[str]) -> GuestCommand:
    """Ask for accounts."""
    return GuestCommand(("getent", "passwd", *names), sudo=False)


def read_users(output: bytes) -> dict[str, tuple[str, ...]]:
    """Return the fields of passwd(5) of each account."""
    rows = (tuple(line.split(":")) for line in _lines(output))
    return {row[0]: row for row in rows if len(row) == 7}


def ask_groups(names: Sequence[str]) -> GuestCommand:
    """Ask for groups."""
    return GuestCommand(("getent", "group", *names), sudo=False)


def read_groups(output: bytes) -> dict[str, int]:
    """Return the number of each group."""
    rows = (line.split(":") for line in _lines(output))
    return {row[0]: int(row[2]) for row in rows if len(row) >= 3 and row[2].isdecimal()}


def ask_sysctl(keys: Sequence[str]) -> GuestCommand:
    """Ask for parameters of the kernel that runs."""
    return GuestCommand(("grep", "-H", "", "--", *map(sysctl_path, keys)))


def read_sysctl(output: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Return the value of each parameter that there is; blanks inside count as one."""
    values = dict(line.split(":", 1) for line in _lines(output) if ":" in line)
    return {key: " ".join(values[sysctl_path(key)].split()) for key in keys if sysctl_path(key) in values}


def ask_units(names: Sequence[str]) -> GuestCommand:
    """Ask systemd about units."""
    return GuestCommand(("systemctl", "show", f"--property={','.join(_UNIT)}", "--", *names), sudo=False)


def read_units(output: bytes, names: Sequence[str]) -> dict[str, UnitFact]:
    """Return each unit under the name that was asked for; systemd answers in that order, with its own name for it."""
    blocks = list(_blocks(output))
    if len(blocks) != len(names):
        return {}
    return {name: _unit(name, values) for name, values in zip(names, blocks, strict=True)}


def _unit(name: str, values: dict[str, str]) -> UnitFact:
    return UnitFact(
        name=name,
        load=values.get("LoadState", ""),
        active=values.get("ActiveState", ""),
        sub=values.get("SubState", ""),
        enabled=values.get("UnitFileState", ""),
        pid=_number(values.get("MainPID", "")),
        restarts=_number(values.get("NRestarts", "")),
        result=values.get("Result", ""),
        since=values.get("StateChangeTimestamp", ""),
        stale=values.get("NeedDaemonReload") == "yes",
    )


def _blocks(output: bytes) -> Iterator[dict[str, str]]:
    block: dict[str, str] = {}
    for line in [*_lines(output), ""]:
        key, equals, value = line.partition("=")
        if equals:
            block[key] = value
        elif block:
            yield block
            block = {}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _lines(output: bytes) -> list[str]:
    return output.decode("utf-8", "surrogateescape").split("\n")
