"""Profiles and networks that a new guest may name: those of a site file, or of the host's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.errors import NotFound, VmhostError
from vmhost.ops.capacity import KINDS
from vmhost.ops.hostfile import FILE
from vmhost.ops.sites import SITE_LIMIT, load_site
from vmhost.ops.textfile import TextFault, read_text
from vmhost.ops.yamlfile import read_tree
from vmhost.plan.inherit import merge

if TYPE_CHECKING:
    from vmhost.ports import Ports

_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Size:
    """What a profile says of a guest's size, as text for a form; empty: nothing."""

    cpus: str = ""
    memory: str = ""
    disk: str = ""


@dataclass(frozen=True, slots=True)
class Flavours:
    """What one file offers, as it is written there; ``vlans`` are the VLAN ids of its networks that are ``auto``."""

    file: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Any] = field(default_factory=dict)
    vlans: Mapping[str, int] = field(default_factory=dict)

    @property
    def base(self) -> Path | None:
        """The directory that relative paths in it start from."""
        return Path(self.file).parent if self.file else None

    def said(self, profile: str) -> dict[str, Any]:
        """Return the keys that a guest of this profile has from the file."""
        if profile in self.profiles:
            return _merged(profile, self.profiles, self.defaults)
        return dict(self.defaults)

    def size(self, profile: str) -> Size:
        """Return what a profile, or small, medium or large, says of a guest's size.

        :raises NotFound: there is no such profile.
        """
        if profile in self.profiles:
            return _size(self.said(profile))
        if profile in KINDS:
            return Size(*KINDS[profile].split("x"))
        known = ", ".join((*self.profiles, *(name for name in KINDS if name not in self.profiles)))
        raise NotFound(f"there is no profile {profile}; known here: {known}", subject=profile, hint="vmhost schema")

    def network(self, name: str) -> dict[str, Any]:
        """Return a network with the VLAN that was allocated for it. :raises NotFound: none was."""
        written = dict(self.networks[name])
        if written.get("vlan") == "auto":
            if name not in self.vlans:
                hint = f"vmhost net vlan allocate {name} --site {self.file}"
                raise NotFound(f"no VLAN is allocated for network {name} yet", subject=name, hint=hint)
            written = {key: value for key, value in written.items() if key not in ("range", "reserved")}
            written["vlan"] = self.vlans[name]
        return written


NOTHING: Final = Flavours()
"""No file: only small, medium and large."""


def read_flavours(ports: Ports, file: str) -> Flavours:
    """Return what a site file offers.

    :param file: empty: the host's own, ``host.yaml`` in the configuration, which need not be there.
    :raises NotFound: there is no such file; :raises SpecError: it has faults.
    """
    path = Path(file) if file else ports.layout.config / FILE
    if not file and not path.exists():
        return NOTHING
    site = load_site(path)
    data = read_tree(read_text(path, SITE_LIMIT)).data
    held = [item for item in ports.reservations.read() if item.kind == "vlan" and item.held and item.site == site.name]
    return Flavours(
        file=str(path),
        defaults=data.get("defaults") or {},
        profiles=data.get("profiles") or {},
        networks=data.get("networks") or {},
        vlans={item.owner: int(item.value) for item in held},
    )


def sizes(ports: Ports) -> dict[str, Size]:
    """Return sizes to begin from by name: small, medium, large, and the profiles of the host's own file."""
    try:
        flavours = read_flavours(ports, "")
    except (VmhostError, TextFault, OSError):
        flavours = NOTHING  # every command that is in need of the file says what is wrong with it
    return {name: flavours.size(name) for name in dict.fromkeys((*KINDS, *flavours.profiles))}


def _merged(name: str, profiles: Mapping[str, Any], defaults: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    own = profiles.get(name) or {}
    parent = own.get("profile")
    below = _merged(parent, profiles, defaults, depth + 1) if parent and depth < _DEEPEST else dict(defaults)
    return merge(below, own)


def _size(profile: Mapping[str, Any]) -> Size:
    cpus, memory, disks = profile.get("cpus", ""), profile.get("memory", ""), profile.get("disks") or [{}]
    count = cpus.get("count", "") if isinstance(cpus, dict) else cpus
    size = memory.get("size", "") if isinstance(memory, dict) else memory
    return Size(str(count), str(size), str(disks[0].get("size", "")) if isinstance(disks[0], dict) else "")
