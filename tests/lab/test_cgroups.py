"""Which cgroup hierarchies there are, as mount tables of machines of all three kinds tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhost.lab.cgroups import Hierarchy, hierarchies

V2 = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,release_agent=/usr/lib/x,name=systemd\n"
)
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"

CPU = Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), 1, "cpu,cpuacct")
SYSTEMD = Hierarchy(Path("/sys/fs/cgroup/systemd"), 1, "name=systemd")


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("", ()),
        (V2, (Hierarchy(Path("/sys/fs/cgroup"), 2),)),
        (V1, (CPU, SYSTEMD)),
        (HYBRID, (CPU, SYSTEMD, Hierarchy(Path("/sys/fs/cgroup/unified"), 2))),
        (HYBRID + HYBRID, (CPU, SYSTEMD, Hierarchy(Path("/sys/fs/cgroup/unified"), 2))),
    ],
)
def test_hierarchies(table, found):
    assert hierarchies(table) == found


def test_labs_of_equal_name_in_different_places_have_groups_of_their_own():
    groups = {CPU.group(Path(place, "lab")) for place in ("/a", "/b")}
    assert len(groups) == 2
    assert {group.parent for group in groups} == {CPU.mountpoint}
