"""What many results come to: nothing, the only failure, or one that sums up the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from vmhost.model.errors import Cancelled, PartlyDone, VmhostError

_log = logging.getLogger(__name__)


class Result(Protocol):
    """What became of one guest; ``error`` None: all went well."""

    @property
    def name(self) -> str: ...
    @property
    def error(self) -> VmhostError | None: ...


def as_failure(error: Exception, name: str) -> VmhostError:
    """Return what kept one guest from its turn as an error for people, so that the others have theirs.

    What nobody foresaw is a fault of ours: where it came from goes to the log.
    """
    if isinstance(error, VmhostError):
        return error
    _log.error("%s: unexpected failure", name, exc_info=error)
    return VmhostError(f"unexpected failure: {type(error).__name__}: {error}", subject=name)


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
