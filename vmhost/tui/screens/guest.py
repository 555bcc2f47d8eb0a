"""One guest, by tabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Tab, Tabs

from vmhost.ops.protectionview import ProtectionView, view_protection
from vmhost.tui import errands
from vmhost.tui.guarding import Subject
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.guest import TABS, definition_lines, find, tab_lines
from vmhost.tui.rows.protection import protection_lines
from vmhost.tui.rows.services import deployed_lines, service_lines
from vmhost.tui.screens.asked import Asked
from vmhost.tui.screens.keeping import EVERY, Keeping, subject_of
from vmhost.tui.screens.keptpane import KeptPane
from vmhost.tui.screens.power import Power
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.errors import VmhostError
    from vmhost.ops.host import Host
    from vmhost.ops.watch import Picture
    from vmhost.tui.rows.kept import Kept

_CONSOLE_LINES = 500


class GuestScreen(Keeping, Power):
    """One guest.

    :param tab: the tab that is shown first.
    """

    DEFAULT_CSS = """
    GuestScreen Tabs { height: 2; }
    GuestScreen #text { padding: 0 1; }
    GuestScreen KeptPane { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("guest"),
        Binding("left,h", "step(-1)", show=False, priority=True),
        Binding("right", "step(1)", show=False, priority=True),
        Binding("escape", "back", show=False),
        *(Binding(str(number % 10), f"tab({name!r})", show=False) for number, (name, _) in enumerate(TABS, 1)),
    ]
    AUTO_FOCUS = "#text"
    place = "guest"

    def __init__(self, uuid: str, tab: str = "overview") -> None:
        super().__init__()
        self._uuid = uuid
        self._tab = tab
        self._domain: ObservedDomain | None = None
        self._tail: list[Line] = [Line("reading the console's log", Tone.DIM)]
        self._reading = False
        self._gone = False
        self._cores = Asked(self, "counting the cores", self._show_again)
        self._definition = Asked(self, "comparing with what was applied", self._show_again)
        self._first_boot = Asked(self, "asking the guest over SSH", self._show_again)
        self._services = Asked(self, "asking the guest over SSH", self._show_again)
        self._protection = Asked(self, "reading what is kept of it", self._show_again)
        self._view = ProtectionView()

    def body(self) -> ComposeResult:
        yield Tabs(*(Tab(f"{number % 10} {title}", id=name) for number, (name, title) in enumerate(TABS, 1)))
        yield Lines(id="text")
        yield KeptPane(self.vmhost.signs)

    def on_mount(self) -> None:
        tabs = self.query_one(Tabs)
        tabs.can_focus = False
        tabs.active = self._tab
        super().on_mount()
        self.set_interval(EVERY, self._read_kept_again)

    def title_of_place(self) -> str:
        return self._domain.name if self._domain else "guest"

    def subjects(self) -> tuple[ObservedDomain, ...]:
        return () if self._domain is None or self._gone else (self._domain,)

    def shown_guests(self) -> frozenset[str] | None:
        return frozenset((self._uuid,))

    def show(self, picture: Picture) -> None:
        found = find(picture, self._uuid)
        self._gone = found is None
        if found is None:
            self.say("this guest is gone: somebody removed it; esc goes back", Tone.BAD)
            return
        if self._domain is None:
            self._domain = found
            self._show_head(picture)
        self._domain = found
        self.say("")
        self._show_tab(picture)

    def _show_tab(self, picture: Picture) -> None:
        domain = self._domain
        if domain is None:
            return
        text = self.query_one("#text", Lines)
        text.follow = self._tab in ("console", "cloud-init")
        if self._tab == "console":
            text.show(self._tail)
            if not self._reading:
                self._read_console(domain.facts.serial_log)
        elif self._tab == "cloud-init":
            self._ask(domain)
            text.show(self._first_boot.lines)
        elif self._tab == "services":
            self._ask(domain)
            text.show([*deployed_lines(domain), Line(""), *self._services.lines])
        elif self._tab == "kept":
            self._ask(domain)
            self._pane.show(self._view, self._view.guest(self._uuid), self._protection.lines)
        else:
            self._ask(domain)
            lines = tab_lines(self._tab, picture, domain, self.vmhost.signs)
            before, behind = self._definition.lines, [Line(""), *self._cores.lines]
            text.show([*(before if self._tab == "xml" else ()), *lines, *(behind if self._tab == "cpu" else ())])

    def _ask(self, domain: ObservedDomain, *, again: bool = False) -> None:
        """Ask for what the tab shows besides, if something happened to the guest since it was asked."""
        host = self.vmhost.host
        match self._tab:
            case "cpu":
                self._cores.ask((domain,), lambda: _cores(host, domain), again=again)
            case "xml":
                self._definition.ask((domain,), lambda: _definition(host, domain), again=again)
            case "services":
                services = domain.metadata.services if domain.metadata else ()
                about = (domain.raw.state, services)
                self._services.ask(about, lambda: self._look_at_services(host, domain.name), again=again)
            case "kept":
                self._protection.ask((domain,), lambda: self._read_protection(host, domain), again=again)
            case "cloud-init":
                self._first_boot.ask((domain.raw.state,), lambda: _first_boot(host, domain.name), again=again)

    def _look_at_services(self, host: Host, name: str) -> Sequence[Line]:
        rows = host.services.list(guests=[name])
        return [line for row in rows for line in (*service_lines(row, self.vmhost.signs), Line(""))]

    def _read_protection(self, host: Host, domain: ObservedDomain) -> Sequence[Line]:
        """Read what protects the guest; called in a thread, it leaves one value that never changes."""
        self._view = view = view_protection(host, only=domain)
        return protection_lines(view.guest(self._uuid), self.vmhost.signs)

    @property
    def _pane(self) -> KeptPane:
        return self.query_one(KeptPane)

    def subject(self) -> Subject | None:
        domain, guest = self._domain, self._view.guest(self._uuid)
        if domain is None or self._gone:
            return None
        return subject_of(guest) or Subject(domain.name, domain.name)

    def kept(self) -> Kept | None:
        return self._pane.meant

    def on_screen_resume(self) -> None:
        self._read_kept_again()

    def _read_kept_again(self) -> None:
        """Read anew what is kept of the guest, if that is looked at: it grows old, and others add to it."""
        if not self.is_current or self._gone:
            return
        if self._tab == "kept" and self._domain is not None:
            self._ask(self._domain, again=True)

    def _show_again(self) -> None:
        if self.vmhost.picture is not None and not self._gone:
            self._show_tab(self.vmhost.picture)

    def action_read(self) -> None:
        """Read again what the tab shows."""
        if self._domain is not None:
            self._ask(self._domain, again=True)
        self.vmhost.wake()

    def _read_console(self, log: str) -> None:
        self._reading = True
        host = self.vmhost.host
        errands.send(self, lambda: host.console_tail(log, _CONSOLE_LINES), self._console_read, self._console_failed)

    def _console_read(self, lines: tuple[str, ...]) -> None:
        self._reading = False
        self._tail = [Line(line) for line in lines] or [Line("its console has said nothing yet", Tone.DIM)]
        if self._tab == "console":
            self.query_one("#text", Lines).show(self._tail)

    def _console_failed(self, error: VmhostError) -> None:
        self._reading = False
        self._tail = [Line(str(error), Tone.WARN)]

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        if event.tab.id is None or event.tab.id == self._tab:
            return
        self._tab = event.tab.id
        text = self.query_one("#text", Lines)
        self._show_pane()
        if self.vmhost.picture is not None:
            self._show_tab(self.vmhost.picture)
        if self._tab in ("console", "cloud-init"):
            text.to_end()
        else:
            text.scroll_home(animate=False)

    def _show_pane(self) -> None:
        listed = self._tab == "kept"
        self._pane.display, text = listed, self.query_one("#text", Lines)
        text.display = not listed
        self.set_focus(self._pane.list if listed else text)

    def action_tab(self, tab: str) -> None:
        """Go to a tab."""
        self.query_one(Tabs).active = tab

    def action_step(self, by: int) -> None:
        """Go to the tab beside this one."""
        names = [name for name, _ in TABS]
        self.action_tab(names[(names.index(self._tab) + by) % len(names)])


def _cores(host: Host, domain: ObservedDomain) -> Sequence[Line]:
    from vmhost.ops.guestview import pins_of
    from vmhost.tui.rows.cores import guest_core_lines

    return guest_core_lines(host.capacity(), pins_of(domain))


def _definition(host: Host, domain: ObservedDomain) -> Sequence[Line]:
    from vmhost.ops.guestview import definition_of

    return definition_lines(definition_of(host, domain.uuid), domain)


def _first_boot(host: Host, name: str) -> Sequence[Line]:
    from vmhost.ops.guestview import cloud_init_log

    return [Line(line) for line in cloud_init_log(host, name)] or [Line("its log is empty", Tone.DIM)]
