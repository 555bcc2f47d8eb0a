"""Services inside guests: how they are, those that are not well first, and what may be done to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.model.services import Health, ProbeHistory, Rolling, ServiceRow
from vmhost.tui import errands, servicechanges
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Line, Tone, span
from vmhost.tui.rows.services import COLUMNS, ORDERS, ordered, service_cells, service_key, service_lines
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.screens.plan import PlanScreen
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from textual.screen import Screen

    from vmhost.model.errors import VmhostError
    from vmhost.ops.services import Verb

T = TypeVar("T")
U = TypeVar("U")
_EVERY: Final = 30.0
"""Seconds between two readings of what the watch has seen; no guest is asked for that."""


class ServicesScreen(Frame):
    """Services of all guests: what was deployed at once, how they are when their guests have answered."""

    DEFAULT_CSS = """
    ServicesScreen #services { height: 3fr; }
    ServicesScreen #looks { height: 2fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("services"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#services"
    place = "services"

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, ServiceRow] = {}
        self._past: tuple[str, tuple[ProbeHistory, ...]] = ("", ())
        self._trouble: dict[str, str] = {}
        self._order = ORDERS[0]
        self._asking = self._reading = self._stale = False
        self._turn = 0
        self._asked = 0.0
        self._no_past = ""

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="services")
        yield Lines(id="looks")

    @property
    def grid(self) -> Grid:
        """The table."""
        return self.query_one("#services", Grid)

    def title_of_place(self) -> str:
        marked = f", {len(self.grid.marked)} marked" if self.grid.marked else ""
        age = time.monotonic() - self._asked
        asked = f", asked {span(age)} ago" if self._asked and age >= 60 else ""
        return f"services{marked}{asked}"

    def on_mount(self) -> None:
        super().on_mount()
        self.action_look()
        self.set_interval(_EVERY, self._read_past)

    def on_screen_resume(self) -> None:
        if self._stale:
            self._stale = self.vmhost.at_work > 0  # whoever left a change at work finds them asked again the next time
            self._asking = False  # what is being asked was asked before the change: its answer is not taken
            self.action_look()

    # --- asking -----------------------------------------------------------------------------------------------------

    def action_look(self) -> None:
        """Read what was deployed, and ask the guests."""
        if self._asking:
            return
        self._begin("asking the guests")
        services = self.vmhost.host.services
        self._send(lambda: services.list(look=False), self._deployed)

    def _deployed(self, rows: tuple[ServiceRow, ...]) -> None:
        if not self._rows:
            self._have(rows)
        services = self.vmhost.host.services
        self._send(services.list, self._looked)

    def _looked(self, rows: tuple[ServiceRow, ...]) -> None:
        self._asking = False
        first, self._asked = not self._asked, time.monotonic()
        at_top = self.grid.keys[:1] == (self.grid.key,)
        self._have(rows)
        if first and at_top:  # nobody has chosen one yet: the worst is looked at
            self.grid.action_move(-len(rows))
        bad = sum(bool(row.error) or row.health is Health.DOWN for row in rows)
        if not rows:
            self.say("no service was deployed to a guest of this host: a deploys those of a site file")
        else:
            text = f"{bad} of {len(rows)} are not well" if bad else f"none of {len(rows)} is down"
            self.say(text, Tone.BAD if bad else Tone.GOOD)

    def action_check(self) -> None:
        """Look at the marked services, or the one under the cursor, by their probes."""
        keys, wanted = self._subjects(), self._wanted()
        if not keys or self._asking:
            return
        self._begin("looking")
        services = self.vmhost.host.services

        def check() -> tuple[ServiceRow, ...]:
            return tuple(row for name, guests in wanted.items() for row in services.check([name], guests=guests))

        self._send(check, self._checked)

    def _checked(self, rows: tuple[ServiceRow, ...]) -> None:
        self._asking = False
        for row in rows:
            before = self._rows.get(service_key(row), row)
            self._rows[service_key(row)] = replace(before, looks=row.looks, health=row.health, error=row.error)
        self._show()
        words = (f"{row.service} in {row.guest} is {'not reached' if row.error else row.health}" for row in rows)
        bad = any(row.error or row.health is Health.DOWN for row in rows)
        self.say("; ".join(words), Tone.BAD if bad else Tone.GOOD)

    def _read_past(self) -> None:
        """Read what the watch has seen of the service under the cursor, one reading at a time."""
        key = self.grid.key or ""
        row, picture = self._rows.get(key), self.vmhost.picture
        domain = picture.observed.domain(row.guest) if row and picture else None
        if row is None or domain is None or self._reading or self.app.screen is not self:
            return
        self._reading = True
        call = partial(self.vmhost.host.services.past, row.service, row.guest, domain.uuid)
        errands.send(self, call, partial(self._have_past, key), self._past_failed, "history")

    def _have_past(self, key: str, found: tuple[ProbeHistory, ...]) -> None:
        self._reading = False
        self._past, self._no_past = (key, found), ""
        self._show_looks()
        if key != self.grid.key:  # it went on meanwhile
            self._read_past()

    def _past_failed(self, error: VmhostError) -> None:
        self._reading = False
        self._no_past = f"what the watch has seen is not read: {error.message}"
        self._show_looks()

    def _begin(self, words: str) -> None:
        self._asking = True
        self._turn += 1
        self.say(words, Tone.DIM)

    def _send(self, call: Callable[[], T], then: Callable[[T], None]) -> None:
        """Make a call in a thread, as a part of what is being asked; an answer to what was asked before is lost."""
        turn = self._turn

        def current(hear: Callable[[U], None]) -> Callable[[U], None]:
            return lambda heard: hear(heard) if turn == self._turn else None

        errands.send(self, call, current(then), current(self._failed), "services")

    def _failed(self, error: VmhostError) -> None:
        self._asking = False
        self.say(f"{self.vmhost.signs.crashed} not asked: {' '.join(str(error).splitlines())}", Tone.BAD)

    # --- showing ----------------------------------------------------------------------------------------------------

    def _have(self, rows: Sequence[ServiceRow]) -> None:
        self._rows = {service_key(row): row for row in rows}
        self._trouble = {
            line.guest: f"its line is {line.circuit}, {line.failures} in a row failed: {line.error}"
            for line in self.vmhost.host.services.circuits()
            if line.failures
        }
        self.grid.marked &= self._rows.keys()
        self._show()
        self._read_past()

    def _show(self) -> None:
        self.grid.sorted_by = self._order
        self.grid.show(tuple(service_key(row) for row in ordered(self._rows.values(), self._order)))
        self._show_looks()

    def _show_looks(self) -> None:
        key = self.grid.key or ""
        row = self._rows.get(key)
        lines = [Line("")]
        if row is not None:
            past = self._past[1] if self._past[0] == key else ()
            troubles = [text for text in (self._trouble.get(row.guest), self._no_past) if text]
            lines = service_lines(row, self.vmhost.signs, past, troubles)
        self.query_one("#looks", Lines).show(lines)

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return service_cells(self._rows[key], columns, self.vmhost.signs)

    def on_grid_moved(self) -> None:
        self._show_looks()
        if self._past[0] != self.grid.key:
            self._read_past()

    def on_grid_opened(self, message: Grid.Opened) -> None:
        picture = self.vmhost.picture
        domain = picture.observed.domain(self._rows[message.key].guest) if picture else None
        if domain is not None:
            self.app.push_screen(GuestScreen(domain.uuid))

    def action_open_guest(self) -> None:
        """Open the guest of the service under the cursor."""
        self.grid.action_open()

    def on_grid_titled(self, message: Grid.Titled) -> None:
        if message.column in ORDERS:
            self._order_by(message.column)

    def action_next_order(self) -> None:
        """Order by the next of health, service and guest."""
        self._order_by(ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)])

    def _order_by(self, order: str) -> None:
        self._order = order
        self._show()
        self.grid.refresh()  # the header says by what

    # --- acting -----------------------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        """Mark the service under the cursor, or not, and go on to the next."""
        if self.grid.key is not None:
            self.grid.marked ^= {self.grid.key}
            self.grid.refresh()
            self.grid.action_move(1)

    def action_mark_all(self) -> None:
        """Mark all; none if all are marked."""
        every = frozenset(self._rows)
        self.grid.marked = frozenset() if every == self.grid.marked else every
        self.grid.refresh()

    def _subjects(self) -> tuple[str, ...]:
        """Return the marked services, or the one under the cursor."""
        marked = tuple(key for key in self.grid.keys if key in self.grid.marked)
        return marked or ((self.grid.key,) if self.grid.key is not None else ())

    def _wanted(self) -> servicechanges.Wanted:
        """Return which services are meant, each in which guests; in none: in all of several that have it."""
        found: dict[str, list[str]] = {}
        for key in self._subjects():
            found.setdefault(self._rows[key].service, []).append(self._rows[key].guest)
        for name, guests in found.items():
            every = {row.guest for row in self._rows.values() if row.service == name}
            found[name] = [] if len(guests) > 1 and set(guests) == every else sorted(guests)
        return dict(sorted(found.items()))

    def _open(self, screen: Screen[None]) -> None:
        """Open a screen that may change services; whoever comes back from it finds them asked again."""
        self._stale = True
        self.app.push_screen(screen)

    def action_act(self, verb: str) -> None:
        """Plan to start, stop or restart."""
        wanted = self._wanted()
        if wanted:
            self._open(PlanScreen(servicechanges.act(wanted, cast("Verb", verb))))

    def action_delete(self) -> None:
        """Plan to take the service under the cursor out of its guest."""
        row = self._row()
        if row is not None:
            self._open(PlanScreen(servicechanges.delete(row.service, [row.guest])))

    def action_deploy(self) -> None:
        """Open the form that deploys the services of a site file."""
        from vmhost.tui.screens.serviceforms import DeployScreen

        self._open(DeployScreen())

    def action_roll(self) -> None:
        """Open the form of a rolling change of the service under the cursor."""
        from vmhost.tui.screens.serviceforms import RollScreen

        row = self._row()
        self._open(RollScreen(row.service if row else "", sorted({one.service for one in self._rows.values()})))

    def action_roll_back(self) -> None:
        """Plan to take the last roll of the service under the cursor back."""
        row = self._row()
        if row is not None:
            self._open(PlanScreen(servicechanges.roll_back(row.service, Rolling())))

    def action_logs(self) -> None:
        """Open the log of the service under the cursor, merged over its guests."""
        from vmhost.tui.screens.servicelog import ServiceLogScreen

        row = self._row()
        if row is not None:
            self.app.push_screen(ServiceLogScreen(row.service))

    def _row(self) -> ServiceRow | None:
        return self._rows.get(self.grid.key or "")
