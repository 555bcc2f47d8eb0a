"""The form that says which points of a guest stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhost.model.errors import UsageError
from vmhost.ops.prune import EXAMPLE, parse_keep
from vmhost.tui import guarding
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.plan import Plan
    from vmhost.tui.changes import Change
    from vmhost.tui.guarding import Subject


class PruneScreen(FormScreen):
    """What is kept of a guest's points; the rest goes."""

    def __init__(self, meant: Subject) -> None:
        super().__init__()
        self._meant = meant

    def title_of_place(self) -> str:
        return f"prune {self._meant.name}"

    def fields(self) -> Sequence[Field]:
        return (Field("keep", "keep", "", f"empty: as its site says; or {EXAMPLE}, last=3, within=48h"),)

    def faults(self) -> dict[str, str]:
        try:
            if self.value("keep"):
                parse_keep(self.value("keep"))
        except UsageError as error:
            return {"keep": error.message}
        return {}

    def trial(self) -> Callable[[], Plan]:
        host, meant, keep = self.vmhost.host, self._meant, self.value("keep")
        return lambda: guarding.pruning_of(host, meant, keep).plan

    def change(self) -> Change:
        return guarding.prune(self._meant, self.value("keep"))
