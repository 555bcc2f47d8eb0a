"""What the libvirt driver costs and leaves behind in a process: imports, threads, stderr."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vmhost.drivers.command import run
from vmhost.drivers.libvirt import connect
from vmhost.model.errors import Unreachable

TOP = Path(__file__).parents[2]

READS = """
import sys, threading
from vmhost.drivers.libvirt import connect

hypervisor = connect(sys.argv[1])
hypervisor.domains()
heavy = {"asyncio", "concurrent.futures", "jinja2", "libvirt_qemu", "libvirtaio", "logging", "lxml", "pydantic",
         "pyroute2", "stamina", "structlog", "subprocess", "vmhost.drivers.kvm", "vmhost.drivers.libvirt.events",
         "vmhost.model.steps", "xml.etree.ElementTree"}
print(sorted(heavy & set(sys.modules)), threading.active_count())
"""

ERRORS = """
import sys
from vmhost.drivers.libvirt import connect
from vmhost.model.errors import DriverError

hypervisor = connect(sys.argv[1])
calls = [
    lambda: hypervisor.domain("00000000-0000-0000-0000-000000000000"),
    lambda: hypervisor.define("<domain/>"),
    lambda: hypervisor.delete_pool("missing"),
    lambda: connect("no-such-driver:///"),
    lambda: connect("qemu+unix:///system?socket=/nonexistent"),
]
for call in calls:
    try:
        call()
    except DriverError as error:
        assert error.hint, error
    else:
        raise SystemExit("no error")
"""


def python(script: str, tmp_path: Path) -> tuple[str, bytes]:
    node = tmp_path / "node.xml"
    node.write_text("<node><memory>8388608</memory></node>")
    done = run([sys.executable, "-c", script, f"test://{node}"], timeout=20, cwd=TOP)
    return done.text, done.stderr


def test_a_read_loads_nothing_heavy_and_starts_no_thread(tmp_path: Path) -> None:
    assert python(READS, tmp_path) == ("[] 1\n", b"")


def test_after_close_nothing_answers(tmp_path: Path) -> None:
    (tmp_path / "node.xml").write_text("<node><memory>8388608</memory></node>")
    with connect(f"test://{tmp_path}/node.xml") as hypervisor:
        assert hypervisor.domains() == ()
    with pytest.raises(Unreachable):
        hypervisor.domains()


def test_errors_never_reach_stderr(tmp_path: Path) -> None:
    assert python(ERRORS, tmp_path) == ("", b"")
