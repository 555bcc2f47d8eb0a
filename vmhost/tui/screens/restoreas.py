"""The form that makes a new guest of a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vmhost.model.units import check_name
from vmhost.ops.formhelp import site_files
from vmhost.tui import errands, guarding
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.plan import Plan
    from vmhost.model.points import Point
    from vmhost.tui.changes import Change
    from vmhost.tui.guarding import Subject

LATEST: Final = "latest"


class RestoreAsScreen(FormScreen):
    """A point as a guest of its own.

    :param point: its id; empty: the latest.
    """

    def __init__(self, meant: Subject, point: str) -> None:
        super().__init__()
        self._meant = meant
        self._point = point or LATEST
        self._points: tuple[str, ...] | None = None
        self._files: tuple[str, ...] | None = None

    def title_of_place(self) -> str:
        return f"a new guest of {self._meant.name}"

    def on_mount(self) -> None:
        super().on_mount()
        backups, uuid = self.vmhost.host.backups, self._meant.uuid
        errands.send(self, lambda: backups.list(uuid), self._know_points, self.vmhost.tell_error, "points")

    def _know_points(self, found: tuple[Point, ...]) -> None:
        self._points = tuple(point.id for point in reversed(found))
        self.tell_anew("point")

    def fields(self) -> Sequence[Field]:
        if self._files is None:
            self._files = site_files(self.vmhost.host.ledger.layout.config)
        free = _name_for(self._meant)
        sites = ", ".join(self._files) or "a YAML file"
        return (
            Field("point", "point", self._point, self._known(), (LATEST, *(self._points or ()))),
            Field("name", "new name", free, "letters, digits, '.', '_', '-'"),
            Field(
                "site",
                "site file",
                self.vmhost.site_file,
                f"which says what its networks are now: {sites}",
                self._files,
            ),
        )

    def _known(self) -> str:
        if self._points is None:
            return "reading its points"
        shown = ", ".join(self._points[:3])
        return f"{LATEST}, or of {len(self._points)}: {shown}" if self._points else "it has none"

    def faults(self) -> dict[str, str]:
        found: dict[str, str] = {}
        point = self.value("point")
        if not point or (self._points is not None and not self._is_one(point, self._points)):
            found["point"] = "there is no such point of it"
        try:
            check_name(self.value("name"))
        except ValueError as error:
            found["name"] = str(error)
        picture = self.vmhost.picture
        if picture is not None and picture.observed.domain(self.value("name")):
            found.setdefault("name", "there is a guest of this name")
        return found

    @staticmethod
    def _is_one(point: str, points: Sequence[str]) -> bool:
        return any(known.startswith(point) for known in points) or (point == LATEST and bool(points))

    def trial(self) -> Callable[[], Plan]:
        host, meant = self.vmhost.host, self._meant
        point, name, site = (self.value(field) for field in ("point", "name", "site"))
        return lambda: guarding.new_guest_of(host, meant, point, name, site).plan

    def change(self) -> Change:
        self.vmhost.site_file = self.value("site") or self.vmhost.site_file
        return guarding.restore_as(self._meant, *(self.value(field) for field in ("point", "name", "site")))


def _name_for(meant: Subject) -> str:
    """Return a name for the new guest; none where the old one's, which a stranger may have chosen, is no name."""
    name = meant.name if meant.gone else f"{meant.name}-copy"
    try:
        return check_name(name)
    except ValueError:
        return ""
