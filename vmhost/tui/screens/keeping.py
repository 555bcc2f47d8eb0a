"""What may be done about a guest's points and snapshots, from the screen of protection and from a guest's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmhost.tui.guarding import Subject
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.keptpane import KeptPane

if TYPE_CHECKING:
    from vmhost.ops.protectionview import Guarded
    from vmhost.tui.changes import Change
    from vmhost.tui.guarding import Work
    from vmhost.tui.rows.kept import Kept


EVERY: Final = 30.0
"""Seconds after which what is kept is read again while somebody looks at it."""


def subject_of(guest: Guarded | None) -> Subject | None:
    """Return a guest as one that is meant."""
    return Subject(guest.uuid, guest.name, guest.gone, guest.objectives is not None) if guest else None


class Keeping(Frame):
    """The actions on points and snapshots. What changes something opens the plan, what reads opens its work."""

    def subject(self) -> Subject | None:
        """Return the guest that is meant."""
        return None

    def kept(self) -> Kept | None:
        """Return the point or snapshot that is meant; None: the guest as a whole."""
        return None

    def action_back_up(self) -> None:
        """Plan a point."""
        from vmhost.tui import changes

        if meant := self._living():
            self._plan(changes.back_up(meant.name))

    def action_snapshot(self) -> None:
        """Plan a snapshot."""
        from vmhost.tui import changes

        if meant := self._living():
            self._plan(changes.snapshot(meant.name))

    def action_verify(self) -> None:
        """Read back the point that is meant, or all of the guest."""
        from vmhost.tui import guarding

        if (meant := self._meant()) and not self._is_snapshot("read back"):
            self._work(guarding.verify(meant, self._point()))

    def action_drill(self) -> None:
        """Drill the point that is meant, or the newest of the guest."""
        from vmhost.tui import guarding

        if (meant := self._meant()) and not self._is_snapshot("drilled"):
            self._work(guarding.drill(meant, self._point()))

    def action_restore(self) -> None:
        """Plan to bring the guest's disks back to the point that is meant, or to the latest."""
        from vmhost.tui import guarding

        if (meant := self._living()) and not self._is_snapshot("restored; z goes back to one"):
            self._plan(guarding.restore(meant.name, self._point() or "latest"))

    def action_restore_as(self) -> None:
        """Open the form that makes a new guest of a point."""
        from vmhost.tui.screens.restoreas import RestoreAsScreen

        if (meant := self._meant()) and not self._is_snapshot("restored; z goes back to one"):
            self.app.push_screen(RestoreAsScreen(meant, self._point()))

    def action_revert(self) -> None:
        """Plan to go back to the snapshot that is meant."""
        from vmhost.tui import guarding

        if (meant := self._living()) and (name := self._snapshot()):
            self._plan(guarding.revert(meant.name, name))

    def action_drop_snapshot(self) -> None:
        """Plan to delete the snapshot that is meant."""
        from vmhost.tui import guarding

        if (meant := self._living()) and (name := self._snapshot()):
            self._plan(guarding.drop_snapshot(meant.name, name))

    def action_keep(self) -> None:
        """Plan to give up what the disks were before a restore."""
        from vmhost.tui import guarding

        if meant := self._living():
            self._plan(guarding.confirm(meant.name))

    def action_prune(self) -> None:
        """Open the form that says which points stay."""
        from vmhost.tui.screens.prune import PruneScreen

        if meant := self._meant():
            self.app.push_screen(PruneScreen(meant))

    def _meant(self) -> Subject | None:
        """Return the guest that is meant; nothing is meant by a cursor that has slid from what it was put on."""
        pane = self.query_one(KeptPane)
        if pane.slid:
            pane.slid = False
            self._warn(f"what the cursor was on is not there any more; it is on {pane.under_cursor} now")
            return None
        return self.subject()

    def _living(self) -> Subject | None:
        meant = self._meant()
        if meant is None or meant.ours:
            return meant
        text = "is gone" if meant.gone else "is not vmhost's any more"
        self._warn(f"{meant.name} {text}: n makes a new guest of one of its points")
        return None

    def _point(self) -> str:
        kept = self.kept()
        return kept.name if kept and kept.point else ""

    def _snapshot(self) -> str:
        kept = self.kept()
        if kept is None or kept.snapshot is None:
            self._warn("which snapshot? put the cursor on one, in the list of what is kept")
            return ""
        return kept.name

    def _is_snapshot(self, what: str) -> bool:
        kept = self.kept()
        if kept is None or kept.snapshot is None:
            return False
        self._warn(f"{kept.name} is a snapshot; only points are {what}")
        return True

    def _warn(self, text: str) -> None:
        self.app.notify(text, severity="warning", markup=False)

    def _plan(self, change: Change) -> None:
        from vmhost.tui.screens.plan import PlanScreen

        self.app.push_screen(PlanScreen(change))

    def _work(self, work: Work) -> None:
        from vmhost.tui.screens.work import WorkScreen

        self.app.push_screen(WorkScreen(work))
