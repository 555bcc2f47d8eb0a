"""From what a service should be in a guest, and what was found there, to operations; what is right already says why."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from vmhost.model.guestops import (
    ActOnUnit,
    GuestOp,
    GuestPlan,
    GuestPlanned,
    InstallPackages,
    MakeDirectory,
    MakeGroup,
    MakeLink,
    MakeUser,
    PutFile,
    RefreshPackages,
    ReloadUnits,
    RemoveDirectory,
    RemoveFile,
    RemoveGroup,
    RemovePackages,
    RemoveUser,
    SetOwnership,
    SetSysctl,
    Verb,
)
from vmhost.model.services import GuestFacts, PathFact
from vmhost.model.spec.service import DirectorySpec, FileState, ServiceState, UnitSpec
from vmhost.plan.settling import DOWN
from vmhost.render.service import (
    ENVIRONMENTS,
    MANIFESTS,
    Desired,
    manifest,
    manifest_path,
    previous_path,
    read_manifest,
)

UNITS: Final = "/etc/systemd/system/"
MOST_LINES: Final = 60
"""Lines of a difference that are shown of each file."""


@dataclass(slots=True)
class _Draft:
    wanted: Desired
    facts: GuestFacts
    steps: list[GuestPlanned] = field(default_factory=list)
    satisfied: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    changed: list[FileState] = field(default_factory=list)
    installs: bool = False

    @property
    def former(self) -> tuple[ServiceState, ...]:
        """The states that the guest may hold anything of."""
        return _former(self.wanted, self.facts.manifest)

    def hides(self, path: str) -> bool:
        """Whether what lies at a path may be secret: it was so once, or others in the guest may not read it either.

        What lies there as it was deployed, and was no secret then, is none now.
        """
        earlier = [file for state in self.former for file in state.files if file.path == path]
        if path.startswith(f"{ENVIRONMENTS}/") or any(file.secret for file in earlier):
            return True
        fact = self.facts.paths.get(path)
        if fact is None or fact.kind != "file" or int(fact.mode, 8) & 0o004:
            return False
        return all(file.sha256 != fact.sha256 for file in earlier)

    def add(self, do: GuestOp, undo: Iterable[GuestOp], why: str, shown: tuple[str, ...] = ()) -> None:
        self.steps.append(GuestPlanned(do, tuple(undo), why, shown))


def plan_service(guest: str, wanted: Desired, facts: GuestFacts) -> GuestPlan:
    """Return what makes a guest hold a service as it should be, each operation with its undo and its reason."""
    draft = _Draft(wanted, facts)
    _packages(draft)
    _accounts(draft)
    _directories(draft)
    for file in wanted.state.files:
        _file(draft, file)
    _left_behind(draft)
    _sysctl(draft)
    _unit(draft)
    if wanted.gone:
        _gone(draft)
    else:
        _manifest(draft)
    refused = "; ".join(draft.refused)
    steps = () if refused else tuple(draft.steps)
    return GuestPlan(guest, wanted.state.name, steps, tuple(draft.satisfied), refused)


def _packages(draft: _Draft) -> None:
    missing: list[str] = []
    new: list[str] = []
    gone: list[str] = []
    older: list[str] = []
    for package in draft.wanted.state.packages:
        name, _, version = package.partition("=")
        version = version or draft.wanted.versions.get(name, "")
        have = draft.facts.packages.get(name, "")
        if have and version in ("", have):
            draft.satisfied.append(f"package {name}: {have} is installed")
            continue
        missing.append(f"{name}={version}" if version else name)
        if have:
            older.append(f"{name}={have}")
        elif name in draft.facts.packages:
            gone.append(name)
        else:
            new.append(name)
    if not missing:
        return
    draft.installs = True
    draft.add(RefreshPackages(), (), "fetch the lists of packages")
    undo: list[GuestOp] = [InstallPackages(tuple(older))] if older else []
    undo += [RemovePackages(tuple(gone))] if gone else []
    undo += [RemovePackages(tuple(new), purge=True)] if new else []
    had = f" (in place of {', '.join(older)})" if older else ""
    draft.add(InstallPackages(tuple(missing)), undo, f"install {', '.join(missing)}{had}")


def _accounts(draft: _Draft) -> None:
    facts, state = draft.facts, draft.wanted.state
    for name in state.groups:
        if name in facts.groups:
            draft.satisfied.append(f"group {name}: is there")
        else:
            draft.add(MakeGroup(name), [RemoveGroup(name)], f"make group {name}")
    for user in state.users:
        have = facts.users.get(user.name)
        if have is None:
            make = MakeUser(user.name, user.group or "", user.home, user.shell)
            draft.add(make, [RemoveUser(user.name)], f"make account {user.name}")
        elif have[5:7] != (user.home, user.shell):
            text = f"account {user.name} has home {have[5]} and shell {have[6]}: it is somebody else's"
            draft.refused.append(f"{text}; write the same, or another name")
        else:
            draft.satisfied.append(f"account {user.name}: is there")


def _directories(draft: _Draft) -> None:
    own = [] if draft.wanted.gone else [DirectorySpec(path=MANIFESTS, mode="0700")]
    parents = {file.path.rpartition("/")[0] for file in draft.wanted.state.files}
    if ENVIRONMENTS in parents:
        own.append(DirectorySpec(path=ENVIRONMENTS, mode="0700"))
    own += [DirectorySpec(path=path) for path in sorted(parents) if path.startswith(UNITS) and path.endswith(".d")]
    for directory in draft.wanted.state.directories:
        _directory(draft, directory, told=True)
    for directory in own:
        _directory(draft, directory, told=False)


def _directory(draft: _Draft, wanted: DirectorySpec, *, told: bool) -> None:
    owner = wanted.owner if ":" in wanted.owner else f"{wanted.owner}:{wanted.owner}"
    fact, do = draft.facts.paths.get(wanted.path), MakeDirectory(wanted.path, wanted.mode, owner)
    if fact is None:
        draft.add(do, [RemoveDirectory(wanted.path)], f"make directory {wanted.path}")
    elif fact.kind != "directory":
        draft.refused.append(f"{wanted.path} is a {fact.kind}, not a directory: move it away")
    elif (fact.mode, fact.owner) != (wanted.mode, owner):
        undo = MakeDirectory(wanted.path, fact.mode, fact.owner)
        draft.add(do, [undo], f"directory {wanted.path}: {_ownership(fact, wanted.mode, owner)}")
    elif told:
        draft.satisfied.append(f"directory {wanted.path}: is there, {fact.mode} {fact.owner}")


def _file(draft: _Draft, file: FileState) -> None:
    fact, text = draft.facts.paths.get(file.path), draft.wanted.texts[file.path]
    if fact is not None and fact.kind not in ("file", "symlink"):
        draft.refused.append(f"{file.path} is a {fact.kind}, not a file: move it away")
        return
    if fact is not None and fact.kind == "symlink" and not fact.target:
        draft.refused.append(f"{file.path} is a symbolic link, and the guest does not tell where it leads")
        return
    if fact is not None and fact.kind == "file" and fact.sha256 == _sum(draft, file):
        if (fact.mode, fact.owner) == (file.mode, file.owner):
            draft.satisfied.append(f"file {file.path}: is as it should be")
            return
        undo = SetOwnership(file.path, fact.mode, fact.owner)
        why = f"file {file.path}: {_ownership(fact, file.mode, file.owner)}"
        draft.add(SetOwnership(file.path, file.mode, file.owner), [undo], why)
        draft.changed.append(file)
        return
    do = PutFile(file.path, file.mode, file.owner, text, file.sha256, file.check, bool(file.secret))
    checked = ", checked before it goes live" if file.check else ""
    what = "new file" if fact is None else "change file" if fact.kind == "file" else "replace the symbolic link"
    hidden = file.secret or draft.hides(file.path)
    shown = () if hidden else _difference(file.path, draft.facts.texts.get(file.path, b""), text)
    secret = " (secret, not shown)" if hidden else ""
    draft.add(do, _put_back(draft, file.path), f"{what} {file.path}{secret}{checked}", shown)
    draft.changed.append(file)


def _sum(draft: _Draft, file: FileState) -> str:
    """Return the checksum that a file should have; a secret's is made here and goes nowhere."""
    if file.sha256:
        return file.sha256
    from hashlib import sha256

    return sha256(draft.wanted.texts[file.path]).hexdigest()


def _put_back(draft: _Draft, path: str) -> list[GuestOp]:
    """Return what gives a path its former content back."""
    fact, text = draft.facts.paths.get(path), draft.facts.texts.get(path)
    if fact is None:
        return [RemoveFile(path)]
    if fact.kind == "symlink":
        return [MakeLink(path, fact.target)]
    return [PutFile(path, fact.mode, fact.owner, text or b"", secret=draft.hides(path))]


def _ownership(fact: PathFact, mode: str, owner: str) -> str:
    return f"{fact.mode} {fact.owner} -> {mode} {owner}"


def _difference(path: str, old: bytes, new: bytes) -> tuple[str, ...]:
    try:
        before, after = old.decode().splitlines(), new.decode().splitlines()
    except UnicodeDecodeError:
        return (f"binary: {len(old)} bytes -> {len(new)} bytes",)
    lines = [line.rstrip("\n") for line in difflib.unified_diff(before, after, f"a{path}", f"b{path}", n=2)]
    if len(lines) > MOST_LINES:
        return (*lines[:MOST_LINES], f"... and {len(lines) - MOST_LINES} further lines")
    return tuple(lines)


def _left_behind(draft: _Draft) -> None:
    """Stop the units and remove the files of an earlier deployment that the service does not have any more."""
    unit = draft.wanted.state.unit
    for name in _units(draft.former):
        if unit is None or name != unit.name:
            _retire(draft, name)
    kept = {file.path for file in draft.wanted.state.files}
    for file in {file.path: file for state in draft.former for file in state.files}.values():
        if file.path not in kept and file.path in draft.facts.paths:
            hidden = draft.hides(file.path)
            shown = () if hidden else _difference(file.path, draft.facts.texts.get(file.path, b""), b"")
            why = f"remove {file.path}: the service no longer has it"
            draft.add(RemoveFile(file.path), _put_back(draft, file.path), why, shown)
            draft.changed.append(file)


def _retire(draft: _Draft, name: str) -> None:
    fact = draft.facts.units.get(name)
    if fact is None or not fact.there:
        return
    why = "the service no longer has it"
    if fact.active not in DOWN:
        start = (ReloadUnits(), ActOnUnit(name, "start"))  # its file may have been away
        draft.add(ActOnUnit(name, "stop"), start, f"unit {name}: stop, {why}")
    if fact.enabled in ("enabled", "enabled-runtime"):
        enable = (ReloadUnits(), ActOnUnit(name, "enable"))
        draft.add(ActOnUnit(name, "disable"), enable, f"unit {name}: no longer starts with the guest, {why}")


def _sysctl(draft: _Draft) -> None:
    for key, value in draft.wanted.state.sysctl.items():
        have = draft.facts.sysctl.get(key)
        if have is None:
            draft.refused.append(f"the guest's kernel has no parameter {key}")
        elif have == " ".join(value.split()):
            draft.satisfied.append(f"kernel parameter {key}: is {have}")
        else:
            draft.add(SetSysctl(key, value), [SetSysctl(key, have)], f"kernel parameter {key}: {have} -> {value}")


def _unit(draft: _Draft) -> None:
    unit = draft.wanted.state.unit
    fact = draft.facts.units.get(unit.name) if unit else None
    there = fact is not None and fact.there
    own = any(unit and file.path == f"{UNITS}{unit.name}" for file in draft.wanted.state.files)
    if unit is not None and not there and not own and not draft.installs:
        draft.refused.append(f"there is no unit {unit.name} in the guest, and no package to install brings one")
        return
    if any(file.path.startswith(UNITS) for file in draft.changed) or (fact is not None and fact.stale):
        draft.add(ReloadUnits(), (), "let systemd read its units again")
    if unit is None:
        return
    enabled = fact.enabled if fact is not None and there else ""
    _enable(draft, unit, enabled)
    _run(draft, unit, active=fact is not None and fact.active in ("active", "reloading"))


def _enable(draft: _Draft, unit: UnitSpec, enabled: str) -> None:
    on, off = ActOnUnit(unit.name, "enable"), ActOnUnit(unit.name, "disable")
    if enabled in ("static", "generated", "indirect", "transient", "alias"):
        draft.satisfied.append(f"unit {unit.name}: is {enabled}, it cannot be enabled or disabled")
    elif unit.enabled == (enabled in ("enabled", "enabled-runtime")):
        draft.satisfied.append(f"unit {unit.name}: is {enabled or 'disabled'}")
    elif unit.enabled:
        draft.add(on, [off] if enabled else [], f"unit {unit.name}: starts with the guest")
    else:
        draft.add(off, [on] if enabled else [], f"unit {unit.name}: no longer starts with the guest")


def _run(draft: _Draft, unit: UnitSpec, *, active: bool) -> None:
    if unit.state == "stopped":
        if active or draft.installs:
            draft.add(ActOnUnit(unit.name, "stop"), (), f"unit {unit.name}: stop")
        else:
            draft.satisfied.append(f"unit {unit.name}: does not run")
        return
    after = {file.after for file in draft.changed}
    if not active or draft.installs:
        # What a package starts by itself has not read our files yet.
        verb: Verb = "restart" if draft.installs else "start"
        why = "start with all of this" if draft.installs else "start"
        draft.add(ActOnUnit(unit.name, verb), (), f"unit {unit.name}: {why}")
    elif "restart" in after:
        draft.add(ActOnUnit(unit.name, "restart"), (), f"unit {unit.name}: restart, since its files changed")
    elif "reload" in after:
        why = f"unit {unit.name}: reload, since its files changed"
        draft.add(ActOnUnit(unit.name, "reload-or-restart"), (), why)
    else:
        draft.satisfied.append(f"unit {unit.name}: runs")


def _manifest(draft: _Draft) -> None:
    path, text = manifest_path(draft.wanted.state.name), manifest(draft.wanted)
    if draft.facts.manifest.encode() == text:
        if not draft.steps:
            draft.satisfied.append(f"{path}: is as it should be")
        return
    old = draft.facts.manifest.encode()
    undo = PutFile(path, "0600", "root:root", old) if old else RemoveFile(path)
    draft.add(PutFile(path, "0600", "root:root", text), [undo], "note in the guest what it should be")


def _gone(draft: _Draft) -> None:
    """Take out what the guest keeps of the service; what others may use by now stays, and is told."""
    name = draft.wanted.state.name
    for path in (previous_path(name), manifest_path(name)):
        if path in draft.facts.paths:
            draft.add(RemoveFile(path), _put_back(draft, path), f"remove {path}: the service is taken out")
    for state in draft.former:
        draft.satisfied += [f"package {package.partition('=')[0]}: stays" for package in state.packages]
        draft.satisfied += [f"account {user.name}: stays" for user in state.users]
        draft.satisfied += [f"group {group}: stays" for group in state.groups]
        draft.satisfied += [f"directory {directory.path}: stays" for directory in state.directories]
        draft.satisfied += [f"kernel parameter {key}: stays" for key in state.sysctl]
    draft.satisfied[:] = dict.fromkeys(draft.satisfied)


def paths_of(wanted: Desired, before: str) -> Iterator[str]:
    """Yield every path that a plan has to know about."""
    for file in wanted.state.files:
        yield file.path
        if file.path.startswith(UNITS) and file.path.rpartition("/")[0].endswith(".d"):
            yield file.path.rpartition("/")[0]
        if file.path.startswith(f"{ENVIRONMENTS}/"):
            yield ENVIRONMENTS
    yield from (directory.path for directory in wanted.state.directories)
    yield MANIFESTS
    if wanted.gone:
        yield from (manifest_path(wanted.state.name), previous_path(wanted.state.name))
    yield from (file.path for state in _former(wanted, before) for file in state.files)


def units_of(wanted: Desired, before: str) -> list[str]:
    """Return every unit that a plan has to know about."""
    return _units((wanted.state, *_former(wanted, before)))


def _former(wanted: Desired, before: str) -> tuple[ServiceState, ...]:
    old = read_manifest(before) if before else None
    states = (old.state if old else None, wanted.former)
    return tuple(state for state in states if state is not None)


def _units(states: Iterable[ServiceState]) -> list[str]:
    return list(dict.fromkeys(state.unit.name for state in states if state.unit))
