"""What of a deployed service is no longer as it was deployed, thing by thing."""

from __future__ import annotations

from collections.abc import Iterator

from vmhost.model.services import DeployedService, GuestFacts, ServiceDrift
from vmhost.model.spec.service import FileState, ServiceState
from vmhost.render.service import Manifest, read_manifest, state_of


def service_drift(guest: str, deployed: DeployedService, facts: GuestFacts) -> tuple[ServiceDrift, ...]:
    """Return every difference between what was deployed and what is there, by the facts of ``Gatherer.for_drift``."""

    def found() -> Iterator[tuple[str, str, str]]:
        state = state_of(deployed)
        kept = read_manifest(facts.manifest) if facts.manifest else None
        if state is None:
            yield "its state", "one that this vmhost can read", "a newer vmhost's"
            return
        if kept is None:
            yield "the note in the guest", deployed.sha256[:12], "damaged" if facts.manifest else ""
        elif kept.sha256 != deployed.sha256:
            yield "the note in the guest", deployed.sha256[:12], kept.sha256[:12]
        yield from _differences(state, facts, kept)
        yield from _unit(state, facts, stopped=deployed.stopped)

    return tuple(ServiceDrift(guest, deployed.name, what, want, have) for what, want, have in found())


def _differences(state: ServiceState, facts: GuestFacts, kept: Manifest | None) -> Iterator[tuple[str, str, str]]:
    for package in state.packages:
        name, _, version = package.partition("=")
        have = facts.packages.get(name, "")
        if not have or version not in ("", have):
            yield f"package {name}", version or "installed", have
    for name in state.groups:
        if name not in facts.groups:
            yield f"group {name}", "there", ""
    for user in state.users:
        if user.name not in facts.users:
            yield f"account {user.name}", "there", ""
    for directory in state.directories:
        fact = facts.paths.get(directory.path)
        owner = directory.owner if ":" in directory.owner else f"{directory.owner}:{directory.owner}"
        have = f"{fact.kind} {fact.mode} {fact.owner}" if fact else ""
        if have != f"directory {directory.mode} {owner}":
            yield f"directory {directory.path}", f"directory {directory.mode} {owner}", have
    for file in state.files:
        yield from _file(file, facts, kept)
    for key, value in state.sysctl.items():
        have = facts.sysctl.get(key, "")
        if have != " ".join(value.split()):
            yield f"kernel parameter {key}", value, have


def _file(file: FileState, facts: GuestFacts, kept: Manifest | None) -> Iterator[tuple[str, str, str]]:
    fact, what = facts.paths.get(file.path), f"file {file.path}"
    if fact is None or fact.kind != "file":
        yield what, "there", fact.kind if fact else ""
        return
    want = file.sha256 or (kept.sealed.get(file.path, "") if kept else "")
    if want and fact.sha256 != want:
        # Not even the checksum of a secret is told.
        shown = ("the secret", "something else") if file.secret else (want[:12], fact.sha256[:12])
        yield f"{what}: content", *shown
    if (fact.mode, fact.owner) != (file.mode, file.owner):
        yield f"{what}: access", f"{file.mode} {file.owner}", f"{fact.mode} {fact.owner}"


def _unit(state: ServiceState, facts: GuestFacts, *, stopped: bool) -> Iterator[tuple[str, str, str]]:
    if state.unit is None:
        return
    fact, what = facts.units.get(state.unit.name), f"unit {state.unit.name}"
    if fact is None or not fact.there:
        yield what, "there", ""
        return
    running = fact.active in ("active", "reloading", "activating")
    wanted = "stopped" if stopped else state.unit.state
    if running != (wanted == "running"):
        yield what, wanted, f"{fact.active} ({fact.sub})"
    start = "enabled" if state.unit.enabled else "disabled"
    if fact.enabled in ("enabled", "disabled") and fact.enabled != start:
        yield f"{what}: start with the guest", start, fact.enabled
