"""The app: one picture of the host for all screens, taken in a thread; commands, themes, and the way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from textual import events
from textual.app import App, SuspendNotSupported, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Input

from vmhost.model.errors import VmhostError
from vmhost.model.text import sanitize
from vmhost.ops.care import Rounds
from vmhost.ops.watch import INTERVAL, Picture
from vmhost.tui import errands, themes
from vmhost.tui.keymap import EVERYWHERE, Own, bindings
from vmhost.tui.person import Person
from vmhost.tui.rows.cells import ASCII, UNICODE, Signs
from vmhost.tui.screens.guests import GuestsScreen
from vmhost.tui.screens.help import HelpScreen
from vmhost.tui.screens.prompt import CommandLine
from vmhost.tui.screens.small import LEAST_HEIGHT, LEAST_WIDTH, SmallScreen
from vmhost.tui.screens.trouble import TroubleScreen
from vmhost.tui.smooth import Smooth

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel

    from vmhost.ops.host import Host
    from vmhost.ops.preferences import Preferences, View


_PLACES: Final = {
    **{place: place for place in ("guests", "host", "net", "services", "backup", "jobs")},
    "g": "guests",
    "h": "host",
    "network": "net",
    "s": "services",
    "b": "backup",
    "j": "jobs",
}
"""The main screens by what a person may call them in the command line."""


PATIENCE: Final = 5.0
"""Seconds within which whoever asks again to leave means it, though something is read back."""


class Pictured(Message):
    """A new picture of the host."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture


class Troubled(Message):
    """There is no picture, and why."""

    def __init__(self, error: VmhostError) -> None:
        super().__init__()
        self.error = error


class Forgot(Message):
    """What was to be remembered was not, and why."""

    def __init__(self, error: VmhostError) -> None:
        super().__init__()
        self.error = error


class VmhostApp(App[int]):
    """The terminal interface of one host.

    :param host: not closed here.
    :param interval: seconds between two pictures at least.
    :param unicode: False: the terminal shows no more than ASCII.
    :param preferences: the files of the person; None: nothing is read and nothing remembered.
    """

    TITLE = "vmhost"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(EVERYWHERE),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+q", "leave", show=False, priority=True),
    ]
    CSS = "Toast { max-width: 80; }"

    picture: var[Picture | None] = var(None, always_update=True)
    """The one picture that all screens show; no ``reactive``, which would draw the whole screen again each time."""

    known = var(0, always_update=True)
    """Counts how often something more became known of guests on their rounds."""

    def __init__(
        self,
        host: Host,
        *,
        theme: str = "dark",
        interval: float = INTERVAL,
        unicode: bool = True,
        preferences: Preferences | None = None,
    ) -> None:
        super().__init__()
        self._person = Person(preferences)
        self.set_keymap(dict(self._person.own))
        self.host = host
        self.signs: Signs = UNICODE if unicode else ASCII
        self.at_work = self.beside = self.undoing = 0
        """Changes that are under way; work that is, on its screen or left to itself; and how much of that has something
        to take away at its end.
        """
        self._asked_to_leave = -PATIENCE
        self.after_exit = ""
        self.site_file = ""
        """The site file that the person named last."""
        self._watch = host.watch(interval=interval)
        self.rounds = Rounds(host)
        self._thread: threading.Thread | None = None
        self._smooth = Smooth()
        for item in themes.THEMES:
            self.register_theme(item)
        self.theme = theme

    @property
    def own_keys(self) -> Own:
        """The keys that the person chose, by name as in the key map."""
        return self._person.own

    @property
    def view(self) -> View:
        """How the list of guests is to look."""
        return self._person.view

    def remember(self, view: View) -> None:
        """Let the list of guests look so, also the next time."""
        self._person.remember(view, lambda error: self.tell(Forgot(error)))

    def on_forgot(self, message: Forgot) -> None:
        self.tell_error(message.error)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(themes.VARIABLES)

    def on_mount(self) -> None:
        self._smooth.begin()
        self.push_screen(GuestsScreen())
        self._check_size(self.size.width, self.size.height)
        # Not before: what it loads would take the processor from the first screen.
        self.call_after_refresh(self._begin_to_watch)

    def _begin_to_watch(self) -> None:
        self._thread = threading.Thread(target=self._take_pictures, name="watch", daemon=True)
        self._thread.start()
        threading.Thread(target=self.rounds.run, args=(self._hear_of_rounds,), name="rounds", daemon=True).start()

    def _hear_of_rounds(self) -> None:
        self.tell(errands.Answer(self, lambda: setattr(self, "known", self.known + 1)))

    def _take_pictures(self) -> None:
        try:
            self._watch.run(lambda picture: self.tell(Pictured(picture)), lambda error: self.tell(Troubled(error)))
        except Exception as error:  # noqa: BLE001 - a thread's end would say nothing, and the picture would stand still
            self.tell(Troubled(VmhostError(f"unexpected failure: {type(error).__name__}: {error}")))

    def tell(self, message: Message) -> None:
        """Post a message from any thread."""
        with suppress(RuntimeError):  # the app has ended meanwhile
            self.post_message(message)

    def on_unmount(self) -> None:
        try:
            self._watch.stop()
            self.rounds.stop()
            self._person.settle()
        finally:
            self._smooth.end()

    def on_pictured(self, message: Pictured) -> None:
        while any(isinstance(screen, TroubleScreen) for screen in self.screen_stack):
            self.pop_screen()
        self.picture = message.picture
        self._smooth.settle()
        if self._person.summary:
            self.notify(self._person.summary, severity="warning", timeout=15, markup=False)
            self._person.summary = ""

    def on_troubled(self, message: Troubled) -> None:
        if isinstance(self.screen, TroubleScreen):
            self.screen.tell(message.error)
        elif not isinstance(self.screen, SmallScreen):
            self.push_screen(TroubleScreen(message.error))

    def on_answer(self, message: errands.Answer) -> None:
        message.deliver()

    def see(self, uuids: frozenset[str] | None, *, soon: bool = False) -> None:
        """Let the watch know of which guests memory and disks are seen; None: of all; see :meth:`Watch.show_only`."""
        self._watch.show_only(uuids, soon=soon)

    def wake(self) -> None:
        """Let a new picture be taken at once, and what is kept of guests be read again: something was done."""
        self.rounds.forget()
        self._watch.wake()

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a text in passing, made safe here since toasts do not: guests, and strangers, name what it is about."""
        safe = "\n".join(map(sanitize, message.split("\n")))
        super().notify(safe, title=title, severity=severity, timeout=timeout, markup=markup)

    def tell_error(self, error: VmhostError) -> None:
        """Show an error in passing; the hint is the next command."""
        text = " ".join(str(error).splitlines())
        hint = f"\ntry: {error.hint}" if error.hint else ""
        self.notify(f"{text}{hint}", severity="error", timeout=10, markup=False)

    def on_resize(self, event: events.Resize) -> None:
        self._check_size(event.size.width, event.size.height)

    def _check_size(self, width: int, height: int) -> None:
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        if small and not isinstance(self.screen, SmallScreen):
            self.push_screen(SmallScreen())
        elif not small and isinstance(self.screen, SmallScreen):
            self.pop_screen()

    def visit(self, program: Callable[[], int]) -> None:
        """Give the terminal to a program until it ends; where it failed, its words stay until enter is pressed."""
        try:
            with self.suspend():
                code = program()
                if code:
                    with suppress(EOFError):
                        input(f"it ended with exit code {code}; enter goes back ")
        except VmhostError as error:
            self.tell_error(error)
        except SuspendNotSupported:
            self.notify("this terminal cannot be given to another program", severity="error", markup=False)
        except KeyboardInterrupt:
            self.notify("interrupted", markup=False)

    def on_key(self, event: events.Key) -> None:
        """Take a letter that was typed so fast after a key that no field had the focus yet; by now one may have it.

        Such a letter went to the table, and comes here because nobody knew it. It must be neither lost nor a command.
        """
        if not event.is_printable or not event.character:
            return
        if isinstance(self.screen, CommandLine):
            self.screen.take(event.character)
        elif isinstance(self.focused, Input):
            self.focused.insert_text_at_cursor(event.character)

    def action_leave(self) -> None:
        """Quit, unless a change or other work is under way."""
        if self.at_work:
            text = "a change is under way: wait for its end, or esc on its screen asks it to end"
            self.notify(text, severity="warning", markup=False)
            return
        now, before = time.monotonic(), self._asked_to_leave
        self._asked_to_leave = now
        if self.undoing or (self.beside and now - before > PATIENCE):
            text = "work is under way: wait for its end, or x on :jobs asks it to end"
            more = "" if self.undoing else "; the same key again leaves it unfinished"
            self.notify(f"{text}{more}", severity="warning", markup=False)
            return
        self.exit(0)

    def action_help(self) -> None:
        """Show the keys of this screen."""
        if not isinstance(self.screen, (HelpScreen, SmallScreen)):
            place = getattr(self.screen, "place", "")
            self.push_screen(HelpScreen(place, self.own_keys, self._person.complaints))

    def action_next_theme(self) -> None:
        """Change to the next theme."""
        names = themes.NAMES
        place = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(place + 1) % len(names)]
        self.notify(f"theme: {self.theme}", timeout=2, markup=False)

    def action_command(self) -> None:
        """Ask for a command."""
        if not isinstance(self.screen, (CommandLine, SmallScreen, TroubleScreen)):
            self.push_screen(CommandLine(), self.obey)

    def obey(self, text: str | None) -> None:
        """Do what a command line says."""
        word, _, rest = (text or "").strip().lstrip(":").partition(" ")
        match word:
            case "":
                return
            case "q" | "quit":
                self.action_leave()
            case place if place in _PLACES:
                self.go(_PLACES[place])
            case "help":
                self.action_help()
            case "new":
                self.new_guest()
            case "theme" if rest.strip() in themes.NAMES:
                self.theme = rest.strip()
            case "theme":
                self.notify(f"there are the themes {', '.join(themes.NAMES)}", severity="warning", markup=False)
            case _:
                known = "guests, host, net, services, backup, jobs, new, theme NAME, help, q"
                text = f"there is no command {sanitize(word)[:40]!r}: {known}"
                self.notify(text, severity="warning", markup=False)

    def go(self, place: str) -> None:
        """Go to one of the main screens, back over all that lie in between; not away from a change under way."""
        if self.at_work:
            self.notify("a change is under way here", severity="warning", markup=False)
            return
        while len(self.screen_stack) > 2:
            self.pop_screen()
        screen = _screen(place)
        if screen is not None:
            self.push_screen(screen)

    def new_guest(self) -> None:
        """Open the form of a new guest."""
        from vmhost.tui.screens.newguest import NewGuestScreen

        if self.picture is not None and not self.at_work:
            self.push_screen(NewGuestScreen(self.picture.observed))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield SystemCommand("Guests", "The list of guests", lambda: self.go("guests"))
        yield SystemCommand("Host", "Memory, pools and findings of this host", lambda: self.go("host"))
        yield SystemCommand("Network", "Bridges, ports, and who is in which VLAN", lambda: self.go("net"))
        yield SystemCommand("Services", "Services inside guests, and how they are", lambda: self.go("services"))
        yield SystemCommand("Protection", "Points and snapshots, unprotected guests first", lambda: self.go("backup"))
        yield SystemCommand("Jobs", "Long operations, running and past", lambda: self.go("jobs"))
        yield SystemCommand("New guest", "Plan a new guest", self.new_guest)
        yield SystemCommand("Keys", "Help: the keys of this screen", self.action_help)
        yield SystemCommand("Quit", "Leave; guests go on", self.action_leave)
        for name in themes.NAMES:
            yield SystemCommand(f"Theme {name}", "Other colours", lambda name=name: setattr(self, "theme", name))


def _screen(place: str) -> Screen[None] | None:
    """Return a new main screen; imported when it is asked for, since the first screen is to be there at once."""
    match place:
        case "host":
            from vmhost.tui.screens.host import HostScreen

            return HostScreen()
        case "net":
            from vmhost.tui.screens.network import NetworkScreen

            return NetworkScreen()
        case "services":
            from vmhost.tui.screens.services import ServicesScreen

            return ServicesScreen()
        case "backup":
            from vmhost.tui.screens.protection import ProtectionScreen

            return ProtectionScreen()
        case "jobs":
            from vmhost.tui.screens.jobs import JobsScreen

            return JobsScreen()
        case _:
            return None
