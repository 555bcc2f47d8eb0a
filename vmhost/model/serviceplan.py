"""A change of services as a person looks at it: steps inside guests, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

from vmhost.model.plan import Change, Note


@dataclass(frozen=True, slots=True)
class ServiceStep:
    """One step inside a guest: ``why`` is the sentence that its events tell, ``when`` stands before it in a listing.

    ``undo`` says how it is undone, empty: there is nothing to undo. ``shown`` is what will differ. ``quiet``: no event
    tells of it, it is done when all is.
    """

    subject: str
    why: str
    undo: str = ""
    shown: tuple[str, ...] = ()
    when: str = ""
    change: Change = Change.LIVE
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What will be done inside guests; ``harm`` says who is without a service meanwhile, or from then on."""

    steps: tuple[ServiceStep, ...] = ()
    notes: tuple[Note, ...] = ()
    harm: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.steps


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    """The end of a change of services: what became of each, and what the person should write into the site file."""

    done: tuple[str, ...]
    fragment: str = ""

    def __str__(self) -> str:
        if not self.fragment:
            return "\n".join(self.done)
        words = "write the same into the site file, or its next deployment goes back:"
        return "\n".join((*self.done, words, *self.fragment.splitlines()))
