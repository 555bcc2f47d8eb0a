"""Bad input and a host that does not help: a clear error with its exit code and hint, and nothing changed."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.scene import ALL, VMHOST, apply, just_before, look, remove, site_file, told, vmhost
from vmhost.cli import diagnostics
from vmhost.drivers.command import run
from vmhost.model.errors import AlreadyThere, ApplyError, Conflict, DriverError, Refused, VmhostError
from vmhost.model.steps import CreateVolume, DefineDomain
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site

pytestmark = pytest.mark.lab

KIB = 1 << 10
NOBODY = 65534
FOREIGN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>64</memory>
<os><type machine='q35'>hvm</type></os></domain>"""
OTHERS_UUID = "6b1c0f2e-5f3d-4f0e-9d55-0d0c1f7f8a11"


@contextmanager
def image_file(path: Path) -> Iterator[None]:
    """Keep an image's file as it is, whatever happens to it meanwhile."""
    kept = path.with_name("kept")
    shutil.copy(path, kept)
    try:
        yield
    finally:
        kept.replace(path)


@contextmanager
def foreign_domain(lab: InLab, directory: Path, name: str, uuid: str = OTHERS_UUID) -> Iterator[None]:
    """A domain that somebody else defines, and undefines at the end."""
    try:
        define(lab, directory, name, uuid)
        yield
    finally:
        lab.virsh("undefine", uuid, check=False)


def define(lab: InLab, directory: Path, name: str, uuid: str) -> None:
    xml = directory / "foreign.xml"
    xml.write_text(FOREIGN.format(name=name, uuid=uuid))
    lab.virsh("define", str(xml))


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    directory.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], timeout=10)
    try:
        yield directory
    finally:
        run(["umount", "--lazy", str(directory)], timeout=10)  # the history is still open


def outcome(host: Host, site: Path) -> VmhostError | None:
    """Plan and apply; return the error, if any."""
    try:
        apply(host, site)
    except VmhostError as error:
        return error
    return None


# ---- images --------------------------------------------------------------------------------------------------------


def test_an_image_that_is_not_here(real: Host, tmp_path: Path) -> None:
    site = site_file(tmp_path, "gone", "web")
    site.write_text(site.read_text().replace("tiny", "no-such"))
    done = vmhost("apply", str(site), "--yes")
    assert done.code == diagnostics.NOT_FOUND
    assert told(done) == "vmhost: web: image no-such is not here\n  try: vmhost image list --available\n"


def damage(path: Path, how: str) -> None:
    """Spoil an image in a way that its manifest does not tell."""
    match how:
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "emptied":
            os.truncate(path, 0)
        case "backing":
            run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(path)], timeout=20)
        case "data":
            path.unlink()
            data = path.with_name("data")
            options = f"data_file={data},data_file_raw=on"
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "4M"], timeout=20)
        case "other":
            path.unlink()
            run(["qemu-img", "create", "-q", "-f", "vmdk", str(path), "4M"], timeout=20)
        case _:
            path.write_bytes(random.Random(5).randbytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut", "cut short"),
        ("emptied", "is raw, though it should be qcow2"),
        ("backing", r"backing file \(/etc/shadow\)"),
        ("data", "data in another file"),
        ("other", "of format vmdk"),
        ("noise", "is raw, though it should be qcow2"),
    ],
)
def test_a_damaged_image_is_named_and_never_given_to_qemu(
    real: Host, image: Path, tmp_path: Path, how: str, why: str
) -> None:
    site = site_file(tmp_path, "damaged", "web")
    with image_file(image):
        damage(image, how)
        with pytest.raises(Refused, match=rf"image tiny is damaged and is not used: .*{why}") as refused:
            real.plan(load_site(site))
        assert refused.value.hint == "vmhost image delete tiny"


def test_an_image_that_is_damaged_between_plan_and_apply(real: Host, image: Path, tmp_path: Path) -> None:
    proposal = real.plan(load_site(site_file(tmp_path, "damaged", "web")))
    with image_file(image):
        damage(image, "backing")
        with pytest.raises(Refused, match="image tiny is damaged"):
            real.apply(proposal)


# ---- what others have ----------------------------------------------------------------------------------------------


def test_a_foreign_domain_of_the_same_name(real: Host, lab: InLab, tmp_path: Path) -> None:
    site = site_file(tmp_path, "shop", "web")
    with foreign_domain(lab, tmp_path, "web"):
        before = look(real)
        done = vmhost("apply", str(site), "--yes")
        assert done.code == diagnostics.REFUSED
        assert told(done).startswith("vmhost: web: a guest of this name exists and is foreign")
        assert "try: virsh dominfo web" in told(done)
        assert look(real) == before


@pytest.mark.parametrize("theirs", ["name", "uuid"])
def test_a_foreign_domain_that_comes_while_ours_is_made(real: Host, lab: InLab, tmp_path: Path, theirs: str) -> None:
    proposal = real.plan(load_site(site_file(tmp_path, "shop", "web")))
    ours = next(item.do for item in proposal.plan.steps if isinstance(item.do, DefineDomain))
    name, uuid = ("web", OTHERS_UUID) if theirs == "name" else ("other", ours.uuid)
    try:
        host = just_before(real, "hypervisor", "define", lambda: define(lab, tmp_path, name, uuid))
        with pytest.raises(ApplyError, match=f"there is a domain {name} with UUID {uuid}") as failed:
            host.apply(proposal)
        assert isinstance(failed.value.__cause__, AlreadyThere)
        assert diagnostics.exit_code(failed.value) == diagnostics.UNDONE
        assert failed.value.leftovers == ()
        there = {(row.name, row.uuid) for row in real.guests()}
        assert (name, uuid) in there, "what is theirs stays"
    finally:
        lab.virsh("undefine", uuid)


def test_a_foreign_domain_between_plan_and_apply(real: Host, lab: InLab, tmp_path: Path) -> None:
    proposal = real.plan(load_site(site_file(tmp_path, "shop", "web")))
    with foreign_domain(lab, tmp_path, "web"), pytest.raises(Conflict, match="foreign"):
        real.apply(proposal)


def test_a_foreign_volume_of_the_planned_name(real: Host, lab: InLab, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    lab.virsh("pool-create-as", "others", "dir", "--target", str(tmp_path / "pool"))
    try:
        before = look(real)
        proposal = real.plan(load_site(site_file(tmp_path, "shop", "web", host="{pool: others}")))
        volume = next(item.do for item in proposal.plan.steps if isinstance(item.do, CreateVolume))
        theirs = tmp_path / "pool" / volume.name
        theirs.write_bytes(b"precious")
        with pytest.raises(ApplyError, match=volume.name) as failed:
            real.apply(proposal)
        assert isinstance(failed.value.__cause__, AlreadyThere)
        assert failed.value.leftovers == ()
        assert theirs.read_bytes() == b"precious"
        theirs.unlink()
        assert look(real) == before
    finally:
        lab.virsh("pool-destroy", "others")


def test_a_foreign_bridge_of_the_same_name(real: Host, tmp_path: Path) -> None:
    site = bridged(tmp_path)
    run(["ip", "link", "add", "br-shop", "type", "bridge"], timeout=10)
    try:
        before = look(real)
        done = vmhost("apply", str(site), "--yes")
        assert done.code == diagnostics.REFUSED
        assert "br-shop: this bridge was not made by vmhost" in told(done)
        assert "try: ip -d link show br-shop" in told(done)
        assert look(real) == before
    finally:
        run(["ip", "link", "delete", "br-shop"], timeout=10)


def bridged(directory: Path) -> Path:
    """A site whose guest is on a bridge of its own."""
    return site_file(
        directory,
        "shop",
        "web",
        bridges="{br-shop: {address: 10.96.0.1/24}}",
        networks="{lan: {bridge: br-shop, subnet: 10.96.0.0/24}}",
        nics="[{network: lan}]",
    )


def test_a_foreign_bridge_that_comes_while_ours_is_made(real: Host, tmp_path: Path) -> None:
    def make() -> None:
        run(["ip", "link", "add", "br-shop", "type", "bridge"], timeout=10)

    try:
        with pytest.raises(ApplyError, match="br-shop") as failed:
            apply(just_before(real, "links", "carry_out", make), bridged(tmp_path))
        assert isinstance(failed.value.__cause__, AlreadyThere)
        assert failed.value.leftovers == ()
        assert next(link for link in real.observe().links if link.name == "br-shop").alias == ""
    finally:
        run(["ip", "link", "delete", "br-shop"], timeout=10)


def test_guests_that_are_not_ours_are_not_touched(real: Host, lab: InLab, tmp_path: Path) -> None:
    with foreign_domain(lab, tmp_path, "theirs"):
        before = look(real)
        for words in (["start"], ["stop"], ["stop", "--power-off", "--yes"], ["delete", "--disks", "--yes"]):
            done = vmhost("guest", words[0], "theirs", *words[1:])
            assert done.code == diagnostics.REFUSED, told(done)
            assert "theirs: this guest is foreign" in told(done)
        done = vmhost("guest", "start", "nobody")
        assert (done.code, "there is no such guest" in told(done)) == (diagnostics.NOT_FOUND, True)
        assert look(real) == before


# ---- full disks ----------------------------------------------------------------------------------------------------


def test_a_pool_that_becomes_full_at_any_step(real: Host, lab: InLab, tmp_path: Path) -> None:
    """With less and less space the apply fails earlier and earlier: in a seed's upload, in a volume, at the first."""
    with small_disk(tmp_path / "pool", 2048 * KIB) as directory:
        lab.virsh("pool-create-as", "small", "dir", "--target", str(directory))
        try:
            failed = fill_and_apply(
                real, directory, site_file(tmp_path, "shop", "web", host="{pool: small}"), range(0, 640, 32)
            )
        finally:
            lab.virsh("pool-destroy", "small")
    assert {type(error) for error in failed} == {ApplyError}
    assert {diagnostics.exit_code(error) for error in failed} == {diagnostics.UNDONE}
    messages = " | ".join(str(error) for error in failed)
    assert "No space left on device" in messages
    assert "seed" in messages, "one fails in the middle of the upload"
    assert "disk root" in messages, "one fails at the first volume"


def fill_and_apply(host: Host, directory: Path, site: Path, lefts: Iterable[int]) -> list[VmhostError]:
    """Apply with so many KiB free; return the errors. Whatever happens, the host is as before."""
    filler = directory / "filler"
    filler.touch()
    before = look(host)
    failed: list[VmhostError] = []
    for left in lefts:
        free = os.statvfs(directory)
        filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left * KIB)))
        error = outcome(host, site)
        filler.write_bytes(b"")
        if error is None:
            remove(host, "web")
        else:
            failed.append(error)
        assert look(host) == before, f"{left} KiB free: {error}"
    filler.unlink()
    return failed


def test_a_state_directory_that_becomes_full_at_any_step(
    real: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Journal, history and keys fail at every place in turn; what was done is undone all the same."""
    layout = real.ports.layout
    with small_disk(tmp_path / "state", 2048 * KIB) as directory:
        monkeypatch.setenv("VMHOST_STATE_DIR", str(directory))
        monkeypatch.setenv("VMHOST_DISKS_DIR", str(layout.disks))
        with Host() as host:
            apply(host, site := site_file(tmp_path, "shop", "web"))  # makes the site's key and the history
            remove(host, "web")
            failed = fill_and_apply(host, directory, site, (0, *range(8, 40, 4)))
            assert not host.interrupted()
        assert failed
        for error in failed:
            cause = error.__cause__ if isinstance(error, ApplyError) else error
            assert isinstance(cause, DriverError)
            assert "no space left" in str(error)
            assert not getattr(error, "leftovers", ())
            assert re.search(r"df -h \S+", error.hint)
        assert {type(error) for error in failed} >= {DriverError}


def test_no_space_for_the_first_key(real: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = str(real.ports.layout.disks)
    with small_disk(tmp_path / "state", 64 * KIB) as directory:
        (directory / "filler").write_bytes(bytes(56 * KIB))
        monkeypatch.setenv("VMHOST_STATE_DIR", str(directory))
        monkeypatch.setenv("VMHOST_DISKS_DIR", disks)
        done = vmhost("apply", str(site_file(tmp_path, "shop", "web")), "--yes")
        assert done.code == diagnostics.UNREACHABLE, told(done)
        assert "no space left" in told(done)


# ---- no permission -------------------------------------------------------------------------------------------------


def as_user(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as an ordinary user without groups."""
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    command = [*user, VMHOST, "-c", "qemu:///system", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, cwd="/", check=False)


@pytest.mark.parametrize(
    "words", [("guest", "list"), ("guest", "start", "web"), ("recover",), ("guest", "delete", "web", "--yes")]
)
def test_an_ordinary_user_is_told_what_to_type(real: Host, words: tuple[str, ...]) -> None:
    done = as_user(*words)
    assert done.returncode == diagnostics.UNREACHABLE, done.stderr
    assert "ermission denied" in done.stderr
    assert "try: sudo vmhost --connect qemu:///system" in done.stderr
    assert "Traceback" not in done.stderr


def test_changing_another_machines_hypervisor_is_refused(real: Host, tmp_path: Path) -> None:
    """What is not local is for looking only: links and locks would be this machine's."""

    class Elsewhere:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def daemon(self) -> object:
            return replace(real.ports.hypervisor.daemon(), local=False, uri="qemu+ssh://other/system", hostname="other")

    host = Host(ports=replace(real.ports, hypervisor=Elsewhere(real.ports.hypervisor)))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="on another machine: read-only from here") as refused:
        apply(host, site_file(tmp_path, "shop", "web"))
    assert refused.value.hint == "ssh other vmhost ..."


# ---- managed save --------------------------------------------------------------------------------------------------


def test_saved_memory_is_never_lost_or_run_by_surprise(real: Host, lab: InLab, tmp_path: Path) -> None:
    site = site_file(tmp_path, "shop", "web")
    apply(real, site)
    try:
        lab.virsh("managedsave", "web")
        site_file(tmp_path, "shop", "web", memory="96M")
        with pytest.raises(Refused, match="its memory is saved") as refused:
            real.plan(load_site(site))
        assert "--discard-saved" in refused.value.hint
        done = vmhost("apply", str(site), "--yes")
        assert done.code == diagnostics.REFUSED
        assert "saved" in lab.virsh("list", "--all", "--managed-save").text
        with pytest.raises(Refused, match="its memory is saved and would be lost"):
            real.plan_delete(["web"], replace(ALL, power_off=False))

        assert vmhost("guest", "start", "web").code == 0
        assert "64.00 MiB" in maximum(lab) or "65536" in maximum(lab), "it goes on with the memory that it had"

        lab.virsh("managedsave", "web")
        done = vmhost("apply", str(site), "--yes", "--discard-saved")
        assert done.code == 0, told(done)
        assert "98304" in maximum(lab)
        assert "running" in lab.virsh("domstate", "web").text
        lab.virsh("managedsave", "web")
        done = vmhost("guest", "start", "web", "--discard-saved")
        assert done.code == 0, told(done)
        assert "Managed save:   no" in lab.virsh("dominfo", "web").text
    finally:
        remove(real, "web")


def maximum(lab: InLab) -> str:
    """The memory that the running guest has, as virsh says it."""
    return lab.virsh("dommemstat", "web").text


def test_a_missing_site_file_is_said(real: Host, tmp_path: Path) -> None:
    done = vmhost("apply", str(tmp_path / "no.yaml"), "--yes")
    assert done.code in (diagnostics.NOT_FOUND, diagnostics.UNREACHABLE)
    assert str(tmp_path / "no.yaml") in told(done)


def test_a_change_is_never_prompted_for_without_a_terminal(real: Host, tmp_path: Path) -> None:
    done = vmhost("apply", str(site_file(tmp_path, "shop", "web")))
    assert done.code == diagnostics.USAGE
    assert "there is no terminal to ask at; nothing was done" in told(done)
    assert "add --yes" in told(done)
