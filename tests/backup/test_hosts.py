"""Two hosts, each with its libvirtd, that use one repository at once: each has its place, and reads the other's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backup.hosted import KEPT, POINTS, care, take_points
from tests.backup.writing import Paused, held
from tests.contract.backends import eventually
from tests.labfixture import InLab, lab_python
from tests.reliability.scene import told, vmhost
from vmhost.ops.host import Host

pytestmark = pytest.mark.backup


def test_two_hosts_use_one_repository_at_once(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, other_lab: str
) -> None:
    begin, where = tmp_path / "begin", ("--repository", repository)
    words = ("-P", "-m", "tests.backup.hosted", repository, str(begin), "100")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lab_python, other_lab, *words, timeout=150)
        assert eventually(lambda: other.done() or Path(f"{begin}.awaited").exists(), seconds=60)
        assert not other.done(), other.result()
        begin.touch()  # neither of them has made the repository yet
        mine = take_points(connected, small, repository, 1)
        mine_left = care(connected, repository)
        theirs = json.loads(other.result().text)
    own = connected.backups.repository(repository).host
    assert own != theirs["host"]
    assert len(mine) == len(theirs["taken"]) == POINTS
    assert len(mine_left) == len(theirs["left"]) == KEPT
    points = connected.backups.list(repository=repository)
    assert {(point.ref.host, point.id) for point in points} == {
        *((own, point) for point in mine_left),
        *((theirs["host"], point) for point in theirs["left"]),
    }
    for point in points:  # of both hosts, each with what its own guest's disks held
        (directory,) = Path(repository).glob(f"hosts/{point.ref.host}/guests/*/points/{point.id}")
        wanted = (mine if point.ref.host == own else theirs["taken"])[point.id]
        assert {disk: held(directory / f"{disk}.qcow2", tmp_path) for disk in wanted} == wanted
    assert list(Path(repository).rglob(".new-*")) == []

    # the name means the guest that is here; the other one's is asked for by its UUID
    listed = vmhost("backup", "list", "small", *where, "-o", "name").text.split()
    assert set(listed) == {*mine_left, *theirs["left"]}
    before = noted(repository, theirs["host"])
    assert vmhost("backup", "verify", "small", *where).code == 0
    assert vmhost("backup", "prune", "small", "--keep", "last=1", "--yes", *where).code == 0
    assert noted(repository, theirs["host"]) == before, "nothing of the other host was touched"
    assert vmhost("backup", "verify", "--all", *where).code == 0
    made = vmhost("backup", "restore", theirs["guest"], "--as", "copy", "--yes", *where)
    assert made.code == 0, told(made)
    try:
        lines = lab.virsh("domblklist", "copy", "--details").text.splitlines()
        files = [Path(line.split()[3]) for line in lines if line.split()[3].endswith(".qcow2")]
        newest = theirs["taken"][theirs["left"][-1]]
        assert {held(path, tmp_path) for path in files} == set(newest.values())
    finally:
        vmhost("guest", "delete", "copy", "--power-off", "--disks", "--yes")


def noted(repository: str, host: str) -> dict[str, bytes]:
    """What lies in a host's place, but for the disks."""
    place = Path(repository) / "hosts" / host
    files = (path for path in place.rglob("*") if path.is_file() and path.suffix != ".qcow2")
    return {str(path): path.read_bytes() for path in files}
