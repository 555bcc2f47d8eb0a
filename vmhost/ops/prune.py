"""Pruning: the points that a rule no longer keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe
from vmhost.model.domains import meant
from vmhost.model.errors import UsageError
from vmhost.model.plan import Plan
from vmhost.model.retention import Keep
from vmhost.model.units import parse_age
from vmhost.ops.proposals import Proposal
from vmhost.plan.applied import applied_spec
from vmhost.plan.choose import guest_called
from vmhost.plan.prune import plan_prune

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.points import Point
    from vmhost.ops.host import Host

COUNTED: Final = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
EXAMPLE: Final = "daily=7,weekly=4,monthly=6"


def parse_keep(text: str) -> Keep:
    """Return the rules that a text such as ``last=3,daily=7,within=48h`` says. :raises UsageError: it says none."""
    found: dict[str, float] = {}
    for part in text.split(","):
        rule, _, value = part.strip().partition("=")
        try:
            if rule in found or rule not in (*COUNTED, "within"):
                raise ValueError(f"{part.strip()!r} is no rule: {', '.join(COUNTED)} or within, each once")
            found[rule] = parse_age(value) if rule == "within" else _count(value)
        except ValueError as error:
            raise UsageError(str(error), subject="--keep", hint=f"--keep {EXAMPLE}") from error
    within = found.pop("within", 0.0)
    keep = Keep(**{rule: int(value) for rule, value in found.items()}, within=within)
    if not keep.rules:
        raise UsageError("nothing would be kept for its own sake", subject="--keep", hint=f"--keep {EXAMPLE}")
    return keep


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _rules_of_sites(observed: Observed) -> dict[str, Keep]:
    """Return what the site of each guest, by UUID, says that is kept of its points."""
    specs = {domain.uuid: applied_spec(domain) for domain in observed.domains}
    return {uuid: spec.backup.keep.rules for uuid, spec in specs.items() if spec and spec.backup}


def _labels(points: Iterable[Point], observed: Observed) -> dict[str, str]:
    """Return what to call each guest, by UUID: its name, or its last; with its UUID where another is called so."""
    called = {point.ref.guest: point.name for point in sorted(points, key=lambda point: point.generation)}
    called |= {domain.uuid: domain.name for domain in observed.domains}
    times = Counter(called.values())
    return {guest: name if times[name] == 1 else f"{name} ({guest})" for guest, name in called.items()}


def propose_prune(host: Host, names: Sequence[str], keep: Keep | None, repository: str | None = None) -> Proposal:
    """Return what would be deleted; nothing is changed. Days and weeks are those of this machine's time zone.

    :param names: guests, also those that are gone, by name or UUID; empty: all of this host's. A name means the guest
        that has it now, under whatever names its points were taken, and none that had it before.
    :param keep: None: what each guest's site says; of guests for which none says anything all points stay.
    :raises NotFound: there is no point of one of them; :raises Refused: several that are gone had a name.
    """
    ports, backups = host.ports, host.backups
    place, zone = backups.repository(repository), ports.clock.zone()

    def again(observed: Observed) -> Plan:
        # Of guests that are here no more is read than what is their own.
        living = {name: domain.uuid for name in names if (domain := meant(name, observed.domains)) is not None}
        here = dict.fromkeys(living.values())
        read = tuple(here) if names and living.keys() >= set(names) else ("",)
        points = [point for guest in read for point in ports.repositories.points(place.path, guest)]
        guests = dict.fromkeys(point.ref.guest for point in points)
        if names:
            guests = dict.fromkeys(guest_called(name, points, living.get(name, "")) for name in names)
        called = _labels(points, observed)
        rules = _rules_of_sites(observed) if keep is None else {}
        damages = [damage for guest in read for damage in ports.repositories.damaged(place.path, guest)]
        unread = {damage.holds: damage for damage in damages}
        parts = [
            plan_prune(
                [point for point in points if point.ref.guest == guest],
                keep or rules.get(guest, Keep()),
                place.host,
                zone,
                unread=unread.get(guest),
                label=called[guest],
            )
            for guest in guests
        ]
        steps = tuple(item for part in parts for item in part.after)
        return Plan("", after=steps, notes=tuple(note for part in parts for note in part.notes))

    seen = observe(ports)
    called = {domain.uuid: domain.name for domain in seen.domains}
    subject = " ".join(called.get(name, name) for name in names) or "all"
    return Proposal(f"prune {subject}", again(seen), again, locks_host=False)
