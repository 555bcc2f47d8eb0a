"""The services of a site: which guests each has, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator

from vmhost.model.spec.cloudinit import FILES_LIMIT
from vmhost.model.spec.faults import Key
from vmhost.model.spec.service import ServiceSpec
from vmhost.model.units import format_size
from vmhost.plan.inherit import Draft


def check_services(draft: Draft) -> dict[str, ServiceSpec]:
    """Return the services with their guests written out; note what is wrong with them."""
    found = {}
    taken: dict[tuple[str, str], str] = {}
    for name, service in draft.written.services.items():
        guests = tuple(dict.fromkeys(_guests(draft, name, service)))
        _check(draft, name, service)
        for guest in guests:
            for what in _claims(service):
                other = taken.setdefault((guest, what), name)
                if other != name:
                    draft.fault(f"{what} in {guest} is service {other}'s, too", "services", name)
        found[name] = service.model_copy(update={"guests": guests, "labels": {}})
    return found


def _guests(draft: Draft, name: str, service: ServiceSpec) -> Iterator[str]:
    at: tuple[Key, ...] = ("services", name)
    entries = {entry for entry, _ in draft.guests}
    if bool(service.guests) == bool(service.labels) and not draft.partial([("services", name)]):
        draft.fault("needs guests or labels, and not both: where does it run?", *at)
    for number, wanted in enumerate(service.guests):
        matching = [guest.name for entry, guest in draft.guests if wanted in (entry, guest.name)]
        yield from matching
        if not matching and wanted not in entries and not draft.knows("guests", wanted):
            text = f"there is no guest {wanted!r}{draft.nearest('guests', wanted)}"
            draft.fault(text, *at, "guests", number)
    if service.labels:
        matching = [g.name for _, g in draft.guests if service.labels.items() <= g.labels.items()]
        yield from matching
        if not matching and not draft.broken.get("guests"):
            draft.fault("no guest has these labels", *at, "labels")


def _claims(service: ServiceSpec) -> Iterator[str]:
    yield from (f"file {file.path}" for file in service.files)
    if service.unit is not None:
        yield f"unit {service.unit.name}"
    yield from (f"port {port}" for port in service.ports)
    yield from (f"kernel parameter {key}" for key in service.sysctl)


def _check(draft: Draft, name: str, service: ServiceSpec) -> None:
    at: tuple[Key, ...] = ("services", name)
    for key, items in (
        ("files", [file.path for file in service.files]),
        ("directories", [directory.path for directory in service.directories]),
        ("users", [user.name for user in service.users]),
        ("groups", list(service.groups)),
        ("packages", [package.partition("=")[0] for package in service.packages]),
    ):
        for number, item in enumerate(items):
            if item in items[:number]:
                draft.fault(f"{item!r} is given twice", *at, key, number)
    for number, file in enumerate(service.files):
        if file.source is not None and file.content is None:
            draft.fault(f"the file {file.source!r} was not read", *at, "files", number, "source")
    for user in service.users:
        if user.name == "root":
            draft.fault("root is not made: leave it out", *at, "users")
    total = sum(len((file.content or "").encode()) for file in service.files)
    if total > FILES_LIMIT:
        draft.fault(f"its files are {format_size(total)} together: at most {format_size(FILES_LIMIT)}", *at, "files")
    if service.restart.policy != "never":
        _check_restart(draft, name, service)


def _check_restart(draft: Draft, name: str, service: ServiceSpec) -> None:
    """Note what would keep a policy from ever doing anything."""
    at: tuple[Key, ...] = ("services", name, "restart")
    if service.unit is None:
        draft.fault("there is no unit to restart: give the service a unit, or write policy: never", *at)
    elif service.unit.state == "stopped":
        draft.fault("a unit that is to be stopped is not restarted: write policy: never", *at)
    elif service.probes and not any(probe.role == "liveness" for probe in service.probes.values()):
        draft.fault("no probe has role: liveness, so that nothing would ever lead to a restart", *at)
