"""The same XML before a real libvirtd: what it accepts, and what its normal form says of the fields that are ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.render.cases import CASES, GIB, GOLDEN, HOST, MIB, NETWORKS, UUID, Case, guest, packaged
from vmhost.drivers.command import CommandFailed, run
from vmhost.model.identity import NicIdentity, tap_name
from vmhost.render import amend
from vmhost.render.document import same
from vmhost.render.domain import DiskPath
from vmhost.render.parse.capabilities import parse_capabilities, parse_domain_capabilities
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.parse.storage import parse_pool
from vmhost.render.shape import flat
from vmhost.render.storage import pool_xml, volume_xml
from vmhost.render.tuning import with_tuning

pytestmark = pytest.mark.lab

TEMPLATES = packaged()
HERE = [name for name, case in CASES.items() if not case.host.kvm]
"""The cases that need no KVM: this libvirt refuses to define what its QEMU cannot run."""


@pytest.fixture
def define(lab: InLab, tmp_path: Path) -> Iterator[Defined]:
    defined = Defined(lab, tmp_path)
    yield defined
    with suppress(CommandFailed):
        lab.virsh("destroy", UUID)
    with suppress(CommandFailed):
        lab.virsh("undefine", UUID, "--nvram")


class Defined:
    """Defines a domain and reads back libvirt's normal form of it."""

    def __init__(self, lab: InLab, directory: Path) -> None:
        self._lab = lab
        self._file = directory / "domain.xml"

    def __call__(self, xml: str) -> str:
        self._file.write_text(xml)
        self._lab.virsh("define", "--validate", str(self._file))
        return self.inactive()

    def inactive(self) -> str:
        return self._lab.virsh("dumpxml", "--inactive", UUID).text

    def start(self) -> str:
        self._lab.virsh("start", UUID)
        return self._lab.virsh("dumpxml", UUID).text


@pytest.mark.parametrize("name", CASES)
def test_virt_xml_validate_agrees(name: str) -> None:
    run(["virt-xml-validate", str(GOLDEN / f"{name}.xml"), "domain"], timeout=30)


@pytest.mark.parametrize("name", HERE)
def test_owned_fields_come_back_unchanged(name: str, define: Defined) -> None:
    ours = CASES[name].render()
    theirs = define(ours)
    assert parse_domain(theirs) == parse_domain(ours)
    assert parse_metadata(theirs) == parse_metadata(ours)


def _without_shape(case: Case, xml: str) -> str:
    """The definition without the picture of its pCPUs, which plans take away before they change anything else."""
    return flat(xml) if case.tuning.shape else xml


@pytest.mark.parametrize("name", HERE)
def test_the_normal_form_is_a_fixed_point_of_amending_and_of_defining(name: str, define: Defined) -> None:
    case = CASES[name]
    theirs = define(case.render())
    spec = case.spec
    amended = amend.with_memory(_without_shape(case, theirs), spec.memory.size, spec.memory.max or spec.memory.size)
    amended = amend.with_vcpus(amended, spec.cpus.count, spec.cpus.max or spec.cpus.count)
    amended = amend.with_metadata(amended, case.context().metadata)
    for disk in case.context().disks:
        amended = amend.with_disk_added(amended, disk, TEMPLATES)
    for nic in case.identity().nics:
        amended = amend.with_nic_changed(amended, nic, case.networks[nic.network], TEMPLATES)
    if case.tuning.shape:
        amended = with_tuning(amended, case.tuning)
    assert same(amended, amend.normal(theirs))
    assert define(amended) == theirs


@pytest.mark.parametrize("name", HERE)
def test_a_guest_grows_on_top_of_the_normal_form(name: str, define: Defined) -> None:
    theirs = define(CASES[name].render())
    plain = _without_shape(CASES[name], theirs)
    grown = amend.with_memory(amend.with_vcpus(plain, 3, 6), 3 * GIB, 6 * GIB)
    grown = amend.with_disk_added(grown, DiskPath("more", "/d/more"), TEMPLATES)
    bridged = NicIdentity("more", "wide", "52:54:00:00:00:77", tap_name(UUID, 77))
    user = NicIdentity("user", "nat", "52:54:00:00:00:78", ssh_port=40978)
    grown = amend.with_nic_added(grown, bridged, NETWORKS["wide"], TEMPLATES)
    grown = amend.with_nic_added(grown, user, NETWORKS["nat"], TEMPLATES)
    facts = parse_domain(define(grown))
    assert facts == parse_domain(grown)
    assert (facts.vcpus, facts.max_vcpus, facts.memory, facts.max_memory) == (3, 6, 3 * GIB, 6 * GIB)
    shrunk = amend.with_memory(amend.with_vcpus(define.inactive(), 1, 1), GIB, GIB)
    shrunk = amend.with_disk_removed(amend.with_nic_removed(shrunk, "more"), "more")
    facts = parse_domain(define(amend.with_nic_removed(shrunk, "user")))
    assert (facts.vcpus, facts.max_vcpus, facts.memory, facts.max_memory) == (1, 1, GIB, GIB)
    assert facts.disks == parse_domain(theirs).disks
    assert facts.nics == parse_domain(theirs).nics


def running(tmp_path: Path, **values: object) -> Case:
    """Return a guest with empty disks under ``tmp_path``; it comes as far as its firmware."""
    case = Case(guest(**values), disks=str(tmp_path), logs=str(tmp_path))
    for disk in (*case.context().disks, DiskPath("seed", case.context().seed, "raw")):
        run(["qemu-img", "create", "-q", "-f", disk.format, disk.path, "16M"], timeout=30)
    return case


def awaited(log: Path, words: bytes) -> bytes:
    """Return the console's log once the words are in it; the test's own time limit ends the wait."""
    command = ["sh", "-c", f'tail -c +1 -F "$0" 2>/dev/null | grep -qa -m1 "{words.decode()}"', str(log)]
    run(command, timeout=60)
    return log.read_bytes()


@pytest.mark.parametrize(
    ("firmware", "words"), [("bios", b"No bootable device"), ("uefi", b"BdsDxe: failed to load Boot")]
)
def test_firmware_starts_and_its_complaint_is_in_the_consoles_log(
    firmware: str, words: bytes, define: Defined, tmp_path: Path
) -> None:
    case = running(
        tmp_path,
        firmware=firmware,
        cpus={"count": 1, "max": 2},
        memory={"size": 256 * MIB, "max": 512 * MIB},
        nics=[{"network": "nat", "id": "nat", "address": "dhcp"}],
    )
    define(case.render())
    live = parse_domain(define.start())
    assert live == parse_domain(case.render())
    assert words in awaited(Path(case.context().serial_log), words)
    inactive = define.inactive()
    assert parse_domain(inactive) == live


def test_vcpus_and_memory_grow_while_it_runs(define: Defined, lab: InLab, tmp_path: Path) -> None:
    case = running(tmp_path, cpus={"count": 1, "max": 2}, memory={"size": 256 * MIB, "max": 512 * MIB})
    define(case.render())
    define.start()
    module = tmp_path / "module.xml"
    module.write_text("<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>")
    lab.virsh("attach-device", UUID, str(module), "--live")
    lab.virsh("setvcpus", UUID, "2", "--live")
    live = parse_domain(lab.virsh("dumpxml", UUID).text)
    assert (live.vcpus, live.memory, live.max_memory) == (2, 384 * MIB, 512 * MIB)
    assert parse_domain(define.inactive()) == parse_domain(case.render())


def test_a_disk_is_plugged_into_a_spare_port(define: Defined, lab: InLab, tmp_path: Path) -> None:
    case = running(tmp_path, memory={"size": 128 * MIB})
    theirs = define(case.render())
    define.start()
    for number in range(8):
        path = tmp_path / f"{number}.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], timeout=30)
        part = tmp_path / "disk.xml"
        more = amend.with_disk_added(theirs, DiskPath(f"more{number}", str(path)), TEMPLATES)
        part.write_text(amend.device_xml(more, f"ua-disk-more{number}"))
        lab.virsh("attach-device", UUID, str(part), "--live", "--config")
        theirs = define.inactive()
    aliases = [disk.alias for disk in parse_domain(lab.virsh("dumpxml", UUID).text).disks]
    assert aliases == [disk.alias for disk in parse_domain(theirs).disks]
    assert len(aliases) == 10


def test_volumes_are_what_they_say(lab: InLab, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    base = tmp_path / "base.raw"
    run(["qemu-img", "create", "-q", "-f", "raw", str(base), "1M"], timeout=30)
    files = {"pool": pool_xml("render", str(pool))}
    files["root"] = volume_xml("a-root.qcow2", 3 * MIB, format="qcow2", backing=str(base), backing_format="raw")
    files["data"] = volume_xml("a-data.qcow2", 2 * MIB, format="qcow2")
    files["seed"] = volume_xml("a-seed.iso", 376832, format="raw")
    for name, xml in files.items():
        (tmp_path / f"{name}.xml").write_text(xml)
    lab.virsh("pool-define", str(tmp_path / "pool.xml"), "--validate")
    try:
        lab.virsh("pool-start", "render")
        for name in ("root", "data", "seed"):
            lab.virsh("vol-create", "render", str(tmp_path / f"{name}.xml"))
        names = [line.split()[0] for line in lab.virsh("vol-list", "render").text.splitlines() if line.strip()]
        volumes = [lab.virsh("vol-dumpxml", "--pool", "render", name).text for name in names]
        read = parse_pool(lab.virsh("pool-dumpxml", "render").text, True, volumes)
    finally:
        lab.virsh("pool-destroy", "render", check=False)
        lab.virsh("pool-undefine", "render")
    assert (read.name, read.type, read.path) == ("render", "dir", str(pool))
    assert 0 < read.available < read.capacity
    data, root, seed = read.volumes
    assert (root.format, root.capacity, root.backing, root.path) == (
        "qcow2",
        3 * MIB,
        str(base),
        f"{pool}/a-root.qcow2",
    )
    assert (data.format, data.capacity, data.backing) == ("qcow2", 2 * MIB, "")
    assert (seed.format, seed.capacity) == ("raw", 376832)
    info = json.loads(run(["qemu-img", "info", "--output=json", root.path], timeout=30).text)
    assert info["format-specific"]["data"]["compat"] == "1.1"
    assert not info["format-specific"]["data"]["lazy-refcounts"]
    assert info["backing-filename-format"] == "raw"
    assert (pool / "a-root.qcow2").stat().st_mode & 0o777 == 0o600


def test_capabilities_of_this_machine(lab: InLab) -> None:
    facts = parse_capabilities(lab.virsh("capabilities").text)
    assert facts.architecture == "x86_64"
    assert facts.cpus > 0
    assert facts.memory > GIB
    domain = parse_domain_capabilities(lab.virsh("domcapabilities", "--machine", "q35").text)
    assert domain.uefi
    assert domain.machines[0] in facts.machines
    assert "maximum" in domain.cpu_modes


@pytest.mark.parametrize("name", HERE)
def test_the_test_driver_takes_the_same_guests(name: str, tmp_path: Path) -> None:
    """libvirt's test driver: another type of domain; arguments for QEMU, as for a user network, mean nothing."""
    host = replace(HOST, driver="TEST", architecture="i686")
    ours = replace(CASES[name], host=host).render()
    file = tmp_path / "domain.xml"
    file.write_text(ours)
    script = f"define {file}; dumpxml --inactive {UUID}"
    done = run(["virsh", "--quiet", "--connect", "test:///default", script], timeout=30)
    theirs = done.text[done.text.index("<domain") :]
    bridged = tuple(nic for nic in parse_domain(ours).nics if nic.type == "bridge")
    assert parse_domain(theirs) == replace(parse_domain(ours), nics=bridged)
    assert parse_metadata(theirs) == parse_metadata(ours)


def test_reading_loads_neither_templates_nor_models() -> None:
    code = (
        "import sys; from vmhost.render.parse.metadata import parse_metadata; from vmhost.render.parse import domain; "
        "print([m for m in ('pydantic', 'jinja2', 'libvirt', 'jsonschema') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
