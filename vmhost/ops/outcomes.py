"""What many results come to: nothing, the only failure, or one that sums up the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vmhost.model.errors import Cancelled, PartlyDone, VmhostError


class Result(Protocol):
    """What became of one guest; ``error`` None: all went well."""

    @property
    def name(self) -> str: ...
    @property
    def error(self) -> VmhostError | None: ...


def raise_failures(results: Sequence[Result], *, failed: str, cancelled: str, hint: str) -> None:
    """Return when all went well.

    :param failed: what is true of those that failed, after "2 of 3 guests"; ``cancelled`` likewise, with their names.
    :raises VmhostError: the only failure; :raises Cancelled: some were cancelled; :raises PartlyDone: some failed.
    """
    failures = {result.name: result.error for result in results if result.error}
    if not failures:
        return
    which = f"{len(failures)} of {len(results)} guests"
    if any(isinstance(error, Cancelled) for error in failures.values()):
        raise Cancelled(f"cancelled; {which} {cancelled}: {', '.join(failures)}", hint=hint)
    if len(results) == 1:
        raise next(iter(failures.values()))
    raise PartlyDone(f"{which} {failed}", failures=failures, hint=hint)
