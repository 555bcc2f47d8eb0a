"""What a host does with a repository that others use, too: points while it is told to, then a verification, a prune.

python -m tests.backup.hosted REPOSITORY BEGIN PATTERN: in a lab of its own, as a machine of its own.

It waits for the file BEGIN, and prints what each of its points holds, and which of them are left, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.backup.conftest import SITE, disks_of
from tests.backup.writing import Paused
from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from vmhost import lab as labs
from vmhost.drivers.command import run
from vmhost.model.permit import Permit
from vmhost.model.retention import Keep
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host, connect
from vmhost.ops.sites import parse_site

POINTS, KEPT = 4, 2


@contextmanager
def hosted() -> Iterator[tuple[Host, Paused]]:
    """This lab as a machine of its own, with the paused guest."""
    with tempfile.TemporaryDirectory() as scratch:
        machine = Path(scratch) / "machine-id"
        machine.write_text(f"{random.SystemRandom().randrange(1 << 128):032x}\n")
        run(["mount", "--bind", str(machine), "/etc/machine-id"], timeout=30)
        with tiny_image(Path(scratch), "tiny"), connect() as host:
            lab = InLab(labs.inside() or "")
            host.apply(host.plan(parse_site(SITE)))
            lab.virsh("start", "--paused", "small")
            yield host, Paused(lab, "small", dict(disks_of(host, "small")))
            host.apply(host.plan_delete(["small"], Permit(power_off=True, disks=True)))


def take_points(host: Host, guest: Paused, repository: str, pattern: int) -> dict[str, dict[str, str]]:
    """Take points one after another, each with something new; return what each of them holds."""
    taken = {}
    for turn in range(POINTS):
        guest.write("root", pattern + turn, turn << 20, 1 << 20)
        results = host.backups.run(["small"], repository=repository, full=turn == POINTS - KEPT)
        raise_failures(results)
        assert results[0].point is not None
        taken[results[0].point.id] = guest.hashes()
    return taken


def care(host: Host, repository: str) -> set[str]:
    """Verify this host's points of the guest, and prune them; return those that are left."""
    assert all(not found.damages for found in host.backups.verify("small", repository=repository))
    host.apply(host.backups.plan_prune(["small"], Keep(last=KEPT), repository=repository))
    own = host.backups.repository(repository).host
    return {point.id for point in host.backups.list(repository=repository) if point.ref.host == own}


def main() -> int:
    """Be the other host."""
    repository, begin, pattern = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with hosted() as (host, guest):
        Path(f"{begin}.awaited").touch()
        assert eventually(begin.exists, seconds=60)
        taken = take_points(host, guest, repository, pattern)
        left = care(host, repository)
        own = host.backups.repository(repository).host
        json.dump(
            {"host": own, "guest": host.guest("small").domain.uuid, "taken": taken, "left": sorted(left)}, sys.stdout
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
