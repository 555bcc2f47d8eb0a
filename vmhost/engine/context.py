"""What a running operation carries: the secrets for its seeds, its listener, and whether it should end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vmhost.model.errors import Cancelled
from vmhost.model.events import Event, Notice
from vmhost.model.snapshots import Level
from vmhost.ports import Ports, Waiting
from vmhost.snapports import ThawGuard


@dataclass(frozen=True, slots=True)
class Quiesced:
    """What freezing a guest has reached: the level, how many file systems were frozen, whether they may still be.

    ``since`` is the monotonic moment at which it was asked to; ``guard`` thaws it if nobody else does.
    """

    level: Level
    frozen: int = 0
    open: bool = False
    since: float = 0.0
    guard: ThawGuard | None = None


@dataclass(frozen=True, slots=True)
class Hooked:
    """What the hooks of a guest's services have come to: whether all before the freeze went well, None: there are none;
    and which services have not been let go on yet.
    """

    well: bool | None
    due: tuple[str, ...]


def _silent(_event: Event) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Context:
    """One operation's surroundings.

    ``secrets`` maps keys (``vmhost.render.seed.secret_token``) to values and never leaves the process;
    ``private_key`` is the file of the site's own SSH key; ``cancelled`` is asked between steps and while waiting.
    ``quiesced`` is what freezing has reached, ``hooked`` what services were told of it, by the guests' UUIDs.
    """

    ports: Ports
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    private_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    on_event: Callable[[Event], None] = _silent
    cancelled: Callable[[], bool] = _never
    quiesced: dict[str, Quiesced] = field(default_factory=dict)
    hooked: dict[str, Hooked] = field(default_factory=dict)

    def waiting(self, subject: str) -> Waiting:
        """Return how this operation waits for a lock: until it is cancelled, and saying for whom."""
        return Waiting(cancelled=self.cancelled, told=lambda words: self.on_event(Notice(subject, words)))

    def check(self) -> None:
        """Return, or raise when the operation should end.

        :raises Cancelled: it was cancelled.
        """
        if self.cancelled():
            raise Cancelled("cancelled", hint="vmhost job list")
