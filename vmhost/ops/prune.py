"""Pruning: the points that a rule no longer keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe
from vmhost.model.errors import NotFound, UsageError
from vmhost.model.plan import Plan
from vmhost.model.retention import Keep
from vmhost.ops.proposals import Proposal
from vmhost.plan.applied import applied_spec
from vmhost.plan.prune import plan_prune

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
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
            found[rule] = _span(value) if rule == "within" else _count(value)
        except ValueError as error:
            raise UsageError(str(error), subject="--keep", hint=f"--keep {EXAMPLE}") from error
    within = found.pop("within", 0.0)
    keep = Keep(**{rule: int(value) for rule, value in found.items()}, within=within)
    if not keep.rules:
        raise UsageError("nothing would be kept for its own sake", subject="--keep", hint=f"--keep {EXAMPLE}")
    return keep


def _span(text: str) -> float:
    unit = {"h": 3600.0, "d": 86_400.0}.get(text[-1:])
    if unit is None:
        raise ValueError(f"{text!r} is no time: write hours or days, as 48h or 14d")
    return _count(text[:-1]) * unit


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _rules_of_sites(observed: Observed) -> dict[str, Keep]:
    """Return what the site of each guest, by UUID, says that is kept of its points."""
    specs = {domain.uuid: applied_spec(domain) for domain in observed.domains}
    return {uuid: spec.backup.keep.rules for uuid, spec in specs.items() if spec and spec.backup}


def propose_prune(host: Host, names: Sequence[str], keep: Keep | None, repository: str | None = None) -> Proposal:
    """Return what would be deleted; nothing is changed. Days and weeks are those of this machine's time zone.

    :param names: guests, also those that are gone, by name or UUID; empty: all of this host's.
    :param keep: None: what each guest's site says; of guests for which none says anything all points stay.
    :raises NotFound: there is no point of one of them.
    """
    ports, backups = host.ports, host.backups
    place, zone = backups.repository(repository), ports.clock.zone()

    def again(observed: Observed) -> Plan:
        # Of guests that are named by their UUIDs no more is read than what is their own.
        named = bool(names) and set(names) <= {domain.uuid for domain in observed.domains}
        read = tuple(dict.fromkeys(names)) if named else ("",)
        points = [point for guest in read for point in ports.repositories.points(place.path, guest)]
        known = {name for point in points for name in (point.name, point.ref.guest)}
        missing = next((name for name in names if name not in known), None)
        if missing is not None:
            raise NotFound("there is no point of this guest", subject=missing, hint="vmhost backup list")
        chosen = [p for p in points if not names or p.name in names or p.ref.guest in names]
        rules = _rules_of_sites(observed) if keep is None else {}
        damages = [damage for guest in read for damage in ports.repositories.damaged(place.path, guest)]
        unread = {damage.guest: damage for damage in damages if damage.guest}
        parts = [
            plan_prune(
                [p for p in chosen if p.ref.guest == guest],
                keep or rules.get(guest, Keep()),
                place.host,
                zone,
                unread=unread.get(guest),
            )
            for guest in dict.fromkeys(point.ref.guest for point in chosen)
        ]
        steps = tuple(item for part in parts for item in part.after)
        return Plan("", after=steps, notes=tuple(note for part in parts for note in part.notes))

    seen = observe(ports)
    called = {domain.uuid: domain.name for domain in seen.domains}
    subject = " ".join(called.get(name, name) for name in names) or "all"
    return Proposal(f"prune {subject}", again(seen), again, locks_host=False)
