"""Pinning: a point that never goes, whatever the rules say, until it is unpinned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmhost.engine.observe import observe
from vmhost.model.backupsteps import PinPoint
from vmhost.model.errors import DamagedData
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.ops.proposals import Proposal

if TYPE_CHECKING:
    from vmhost.ops.host import Host


def propose_pin(host: Host, name: str, point: str, *, on: bool, repository: str | None = None) -> Proposal:
    """Return what would be done to pin a point, or to unpin it; nothing is changed.

    :raises NotFound: no such point; :raises DamagedData: what is noted of the guest's points cannot be read, so nobody
        knows which are pinned.
    """
    backups = host.backups

    def again(_: object) -> Plan:
        found = backups.choose(backups.list(name, repository=repository), point, name, repository)
        for damage in backups.damaged(found.ref.guest, repository=repository):
            if damage.point == found.ref.guest:
                raise DamagedData(str(damage), subject=name, hint=f"vmhost backup list {name}")
        if found.pinned == on:
            state = "pinned" if on else "not pinned"
            return Plan(found.site, notes=(Note(name, f"{found.id} is {state} already"),))
        text = f"{name}: {'pin' if on else 'unpin'} point {found.id}"
        step = Planned(PinPoint(found.ref, on), PinPoint(found.ref, not on), Change.LIVE, name, text)
        return Plan(found.site, (step,))

    return Proposal(f"pin {name}", again(observe(host.ports)), again, locks_host=False)
