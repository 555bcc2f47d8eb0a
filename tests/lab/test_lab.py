"""A lab from up to down: what is in it, what it shares, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from vmhost import lab
from vmhost.drivers import command
from vmhost.drivers.command import CommandFailed
from vmhost.lab import daemons, enter
from vmhost.lab.store import Status
from vmhost.model.errors import Conflict, DriverError, NotFound, Refused, UsageError

pytestmark = [pytest.mark.serial, pytest.mark.timeout(180)]


def sh(name: str, script: str, **more) -> str:
    return lab.run_inside(name, ["sh", "-ec", script], timeout=60, **more).text


def test_up_list_exec_down_and_nothing_stays(lab_root, trace, machine):
    before = machine()
    up = lab.up("one", bridge=True)
    seen = trace(up)
    assert [(found.name, found.status) for found in lab.labs()] == [("one", Status.READY)]
    assert lab.execute("one", ["sh", "-c", "exit 7"]) == 7
    assert sh("one", "virsh uri; echo $VMHOST_LAB") == "qemu:///system\n\none\n"
    assert lab.find("one") == up
    assert seen.left() != []
    lab.down("one")
    assert seen.left() == []
    assert lab.labs() == ()
    assert machine() == before


def test_the_directory_of_labs_goes_with_the_last_one(monkeypatch, trace):
    """In its standard place, which nobody chose."""
    monkeypatch.delenv("VMHOST_LAB_DIR", raising=False)
    name = f"standard-{os.getpid()}"
    seen = trace(lab.up(name))
    assert seen.lab.directory == lab.root() / name
    others = [found.name for found in lab.labs() if found.name != name]
    lab.down(name)
    assert seen.left() == []
    assert not lab.root().exists() or others


def test_what_is_the_labs_own(lab_root):
    lab.up("own")
    places = ["/etc", "/etc/vmhost", "/etc/libvirt/hooks", "/var/lib/vmhost", "/var/lib/libvirt/images"]
    places += ["/var/log/vmhost", "/var/cache/vmhost", "/run", "/dev/shm", "/var/lib/vmhost-lab"]
    mark = f"mark-{os.getpid()}"
    sh("own", f"for d in {' '.join(places)}; do mkdir -p $d; echo x > $d/{mark}; done")
    assert [place for place in places if Path(place, mark).exists()] == []
    assert sh("own", f"for d in {' '.join(places)}; do cat $d/{mark}; done") == "x\n" * len(places)


def test_what_a_lab_sees_of_the_machine(lab_root):
    lab.up("seen")
    assert sh("seen", "ls /sys/class/net").split() == ["lo"]
    assert sh("seen", "ip -4 route show table all type unicast; ip -6 route show type unicast default") == ""
    assert sh("seen", "ip -o -4 address show lo").split()[3] == "127.0.0.1/8"
    assert "kvm" not in sh("seen", "ls /dev").split()
    assert int(sh("seen", "ls /proc | grep -c '^[0-9]'")) < 20
    assert sh("seen", "virsh list --all --name").strip() == ""
    assert (
        sh("seen", "cat /etc/hostname /etc/passwd")
        == Path("/etc/hostname").read_text() + Path("/etc/passwd").read_text()
    )
    assert {path.name for path in Path("/var/lib").iterdir()} <= set(sh("seen", "ls -A /var/lib").split())
    assert sh("seen", "dd if=/dev/zero of=/dev/null count=1 status=none; head -c 3 /dev/urandom | wc -c") == "3\n"


def test_kvm_only_when_asked_for(lab_root, monkeypatch):
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm to show")
    monkeypatch.setenv("VMHOST_LAB_KVM", "1")
    # libvirtd is not asked about QEMU here: with KVM in sight that can take minutes on a machine where KVM hangs.
    monkeypatch.setattr("vmhost.lab.cache.lend_capabilities", lambda made: True)
    lab.up("kvm")
    assert "kvm" in sh("kvm", "ls /dev").split()


def test_images_are_shared_both_ways(lab_root, tmp_path):
    lab.up("a")
    lab.up("b")
    sh("a", "echo from-a > /var/lib/vmhost/images/a")
    (tmp_path / "images" / "out").write_text("from outside\n")
    assert sh("b", "cat /var/lib/vmhost/images/a /var/lib/vmhost/images/out") == "from-a\nfrom outside\n"
    lab.down("a")
    assert sh("b", "cat /var/lib/vmhost/images/a") == "from-a\n"
    lab.down("b")
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["a", "out"]


def test_large_files_lie_on_disk_not_in_memory(lab_root):
    lab.up("disk")
    kinds = sh("disk", "stat --file-system --format %T /var/lib/libvirt /var/lib/vmhost /run").split()
    assert kinds[2] == "tmpfs"
    assert "tmpfs" not in kinds[:2]


def test_same_directory_and_environment(lab_root, tmp_path, monkeypatch):
    lab.up("env")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    monkeypatch.setenv("VMHOST_STATE_DIR", "/elsewhere")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert sh("env", "pwd").strip() == str(tmp_path)
    assert sh("env", "env | grep -c -e LIBVIRT_DEFAULT_URI -e VMHOST_STATE_DIR -e VMHOST_LAB_DIR || true") == "0\n"
    assert "/usr/sbin" in sh("env", "echo $PATH").strip().split(":")
    assert sh("env", "echo $WORD $LIBVIRT_DEFAULT_URI", env={"WORD": "given"}) == "given\n"
    monkeypatch.chdir("/run")
    hidden = tmp_path / "labs"
    monkeypatch.chdir(hidden)
    assert sh("env", "pwd").strip() == str(hidden)


def test_directory_that_the_lab_does_not_have(lab_root, monkeypatch):
    lab.up("where")
    with_own = next((path for path in ("/run/lock", "/run", "/var/lib/libvirt") if Path(path).is_dir()), "/")
    monkeypatch.chdir(with_own)
    assert sh("where", "pwd").strip() in {with_own, "/"}
    missing = Path(f"/dev/shm/only-outside-{os.getpid()}")
    missing.mkdir()
    try:
        monkeypatch.chdir(missing)
        assert sh("where", "pwd").strip() == "/"
    finally:
        monkeypatch.chdir("/")
        missing.rmdir()


def test_input_output_and_exit_codes(lab_root):
    lab.up("io")
    assert lab.run_inside("io", ["cat"], timeout=30, input=b"words").stdout == b"words"
    with pytest.raises(CommandFailed) as caught:
        lab.run_inside("io", ["sh", "-c", "echo told >&2; exit 4"], timeout=30)
    assert (caught.value.code, caught.value.stderr) == (4, ("told",))
    assert lab.execute("io", ["no-such-program"]) == 127
    assert lab.execute("io", ["sh", "-c", "kill -9 $$"]) == 128 + 9


def test_time_out_ends_what_runs_inside(lab_root):
    lab.up("late")
    with pytest.raises(CommandFailed, match="not done"):
        lab.run_inside("late", ["sh", "-c", "sleep 77; true"], timeout=0.5)
    assert eventually(lambda: "sleep 77" not in sh("late", "ps ax -o args="), seconds=30)


def test_orphans_are_buried(lab_root):
    lab.up("orphans")
    sh("orphans", "for i in 1 2 3 4 5; do (setsid sleep 0.01 &) ; done; sleep 0.3")
    assert eventually(lambda: "Z" not in sh("orphans", "ps ax -o stat="), seconds=30)


def test_two_labs_know_nothing_of_each_other(lab_root, guest, trace):
    first, second = lab.up("first", bridge=True), lab.up("second", bridge=True)
    seen = trace(first)
    for name in ("first", "second"):
        sh(name, f"virsh define {guest('twin')}; virsh start --paused twin")
        assert sh(name, "ls -d /sys/fs/cgroup/*/machine/*twin* | wc -l").strip() != "0"
    assert [found.name for found in lab.labs()] == ["first", "second"]
    hosts = {sh(name, "virsh capabilities | grep -m1 '<uuid>'").strip() for name in ("first", "second")}
    assert len(hosts) == 2
    lab.down("first")
    assert seen.left() == []
    assert sh("second", "virsh domstate twin").strip() == "paused"
    assert second.status is Status.READY
    assert first.status is Status.DEAD


def test_guest_starts_fast_writes_its_log_and_outlives_libvirtd(lab_root, guest, trace):
    seen = trace(lab.up("guest", bridge=True))
    begin = time.monotonic()
    sh("guest", f"virsh define {guest('tiny')}")
    # With /dev/kvm in sight a define takes a minute or more.
    assert time.monotonic() - begin < 10
    sh("guest", "virsh start tiny")
    begin = time.monotonic()
    while "SeaBIOS" not in sh("guest", "cat /var/log/libvirt/tiny.log"):
        assert time.monotonic() - begin < 30
        time.sleep(0.1)
    pid = sh("guest", "cat /run/libvirt/qemu/tiny.pid")
    quota = sh("guest", "cat /sys/fs/cgroup/cpu*/machine/*tiny*/vcpu0/cpu.cfs_quota_us || cut -d' ' -f1 "
               "/sys/fs/cgroup/machine/*tiny*/libvirt/vcpu0/cpu.max || true").split()  # fmt: skip
    assert "20000" in quota
    assert sh("guest", f"grep Cpus_allowed_list /proc/{int(pid)}/task/*/status").split().count("0") >= 1
    assert "tap-tiny" in sh("guest", "ip -o link show master br-lab")
    daemon = sh("guest", "cat /run/libvirtd.pid")
    for kill in (False, True):
        lab.restart_libvirtd("guest", kill=kill)
        assert sh("guest", "virsh domstate tiny").strip() == "running"
        assert sh("guest", "cat /run/libvirt/qemu/tiny.pid") == pid
        assert sh("guest", "cat /run/libvirtd.pid") != daemon
        daemon = sh("guest", "cat /run/libvirtd.pid")
    # Also a libvirtd that was started from outside the lab can start guests.
    sh("guest", "virsh destroy tiny; virsh start tiny; virsh destroy tiny; virsh start tiny --paused")
    lab.down("guest")
    assert seen.left() == []


def test_libvirtd_of_the_machine_is_not_ours_to_stop(monkeypatch, tmp_path):
    monkeypatch.setattr(enter, "MARK", tmp_path / "nothing")
    with pytest.raises(Refused):
        daemons.restart_libvirtd()


def test_name_that_is_taken(lab_root):
    first = lab.up("taken")
    with pytest.raises(Conflict) as caught:
        lab.up("taken")
    assert caught.value.hint == "vmhost lab down taken"
    assert lab.find("taken") == first
    assert first.status is Status.READY


def test_of_several_at_once_one_gets_the_name_and_different_names_all_come_up(lab_root):
    came, refused = [], []

    def one(name: str) -> None:
        try:
            came.append(lab.up(name).name)
        except Conflict as error:
            refused.append(error.subject)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("x", "x", "x", "y", "z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came) == ["x", "y", "z"]
    assert refused == ["x", "x"]
    assert {found.status for found in lab.labs()} == {Status.READY}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "a\n", "ü", "x" * 64, "$(id)"])
def test_names_that_are_none(lab_root, name):
    for action in (lab.up, lab.down, lab.find):
        with pytest.raises(UsageError):
            action(name)
    assert not lab_root.exists()


def test_no_such_lab(lab_root):
    for action in (lab.down, lab.find, lab.restart_libvirtd, lab.enter_shell):
        with pytest.raises(NotFound):
            action("nowhere")
    with pytest.raises(NotFound):
        lab.execute("nowhere", ["true"])


def test_odd_directory_names(tmp_path, monkeypatch, lab_root):
    monkeypatch.setenv("VMHOST_LAB_DIR", str(tmp_path / "labs with #1 \\ words"))
    lab.up("odd.name_1-x")
    assert sh("odd.name_1-x", "stat --format %F /dev/pts/ptmx /dev/null") == "character special file\n" * 2
    lab.down("odd.name_1-x")
    assert lab.labs() == ()


def test_start_that_fails_leaves_nothing(lab_root, tmp_path, monkeypatch, machine):
    before = machine()
    fake = tmp_path / "bin" / "libvirtd"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'error: out of order' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(DriverError, match=r"libvirtd: exit code 3: error: out of order"):
        lab.up("broken")
    assert lab.labs() == ()
    assert list(lab_root.iterdir()) == []
    assert machine() == before


def test_images_in_a_place_that_is_none(lab_root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VMHOST_IMAGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DriverError, match="no directory for images"):
        lab.up("images")
    assert lab.labs() == ()


def test_ctrl_c_while_it_starts(lab_root, tmp_path):
    """The start hangs until Ctrl-C ends it; nothing of it stays."""
    fake = tmp_path / "bin" / "libvirtd"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec sleep 50\n")
    fake.chmod(0o755)
    script = "from vmhost import lab; lab.up('slow')"
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    with command.spawn([sys.executable, "-c", script], env=env) as child:
        begin = time.monotonic()
        while not (lab.labs() and lab.labs()[0].pid):
            assert time.monotonic() - begin < 60
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(60) != 0
    assert list(lab_root.iterdir()) == []


def test_commands_for_a_lab_that_is_not_ready(lab_root):
    (lab_root / "half").mkdir(parents=True)
    assert lab.find("half").status is Status.DEAD
    with pytest.raises(Conflict) as caught:
        lab.replace_by("half", ["true"])
    assert caught.value.hint == "vmhost lab down half"
    assert lab.execute("half", ["true"]) == enter.FAILED
    lab.down("half")
    assert lab.labs() == ()
