"""What gives a unit its former state back when a plan has failed and all else was undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vmhost.model.guestops import ActOnUnit, GuestOp, ReloadUnits
from vmhost.model.services import GuestFacts
from vmhost.render.service import Desired

DOWN: Final = ("inactive", "failed")
UP: Final = ("active", "reloading", "activating")


def settling(begun: Sequence[GuestOp], wanted: Desired, facts: GuestFacts) -> tuple[GuestOp, ...]:
    """Return what gives the unit its former state back once everything else of a failed plan was undone.

    :param begun: the operations of the plan that were done, or may have been; a unit that none of them touched is
        left alone.
    """
    reload = (ReloadUnits(),) if any(isinstance(op, ReloadUnits) for op in begun) else ()
    unit = wanted.state.unit
    fact = facts.units.get(unit.name) if unit else None
    if unit is None or fact is None or not fact.there:
        return reload
    verbs = {op.verb for op in begun if isinstance(op, ActOnUnit) and op.unit == unit.name} - {"enable", "disable"}
    if verbs and fact.active in UP:
        return (*reload, ActOnUnit(unit.name, "reload-or-restart" if verbs == {"reload-or-restart"} else "restart"))
    if verbs and fact.active in DOWN:
        return (*reload, ActOnUnit(unit.name, "stop"))
    return reload
