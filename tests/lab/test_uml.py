"""A lab with a kernel of its own: commands in it, whoever is killed, and that nothing of it stays."""

from __future__ import annotations

import hashlib
import os
import pwd
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from tests.lab.conftest import TOP
from tests.terminal import on_a_terminal
from vmhost import lab
from vmhost.drivers import command
from vmhost.lab.store import Kernel, Lab, Status
from vmhost.lab.uml.line import LINES
from vmhost.lab.uml.start import remains
from vmhost.model.errors import NotFound, Unreachable, UsageError

pytestmark = [pytest.mark.serial, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("uml")
    before = {name: os.environ.get(name) for name in ("VMHOST_LAB_DIR", "VMHOST_IMAGE_CACHE")}
    os.environ.update(VMHOST_LAB_DIR=str(root / "labs"), VMHOST_IMAGE_CACHE=str(root / "images"))
    yield root
    for found in lab.labs():
        lab.down(found.name)
    for name, text in before.items():
        if text is None:
            del os.environ[name]
        else:
            os.environ[name] = text


@pytest.fixture(scope="module")
def own(roots: Path) -> Iterator[Lab]:
    """A lab for all tests that do it no harm."""
    found = lab.up("own", kernel=Kernel.UML)
    yield found
    lab.down("own")
    assert remains(found) == ()
    assert not found.directory.exists()


def inside(*words: str, **how: object) -> command.Completed:
    return lab.run_inside("own", words, timeout=60, **how)  # type: ignore[arg-type]


def test_it_is_another_kernel_with_a_libvirt_of_its_own(own: Lab) -> None:
    assert own.status is Status.READY
    assert inside("uname", "-r").text.strip() != os.uname().release
    assert inside("virsh", "uri").text.strip() == "qemu:///system"
    assert inside("cat", "/sys/fs/cgroup/cgroup.controllers").text.split()
    assert inside("hostname").text.strip() == os.uname().nodename


def test_bridges_filter_vlans_there(own: Lab) -> None:
    inside("ip", "link", "add", "b0", "type", "bridge", "vlan_filtering", "1", "vlan_default_pvid", "0")
    assert "vlan_filtering 1" in inside("ip", "-d", "link", "show", "b0").text
    inside("nft", "add table bridge try")
    assert "table bridge try" in inside("nft", "list", "ruleset").text


def test_what_is_written_stays_inside(own: Lab) -> None:
    for place in ("/etc", "/run", "/var/lib/libvirt", "/var/log/libvirt", "/dev"):
        inside("touch", f"{place}/vmhost-was-here")
        assert not Path(place, "vmhost-was-here").exists()


def test_output_errors_and_exit_code(own: Lab) -> None:
    done = inside("sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.code) == (b"out\n", b"err\n", 7)
    assert inside("sh", "-c", "kill -TERM $$", check=False).code == 128 + signal.SIGTERM
    gone = inside("no-such-program", check=False)
    assert gone.code == 127
    assert b"no-such-program" in gone.stderr


def test_much_goes_in_and_comes_out(own: Lab) -> None:
    data = os.urandom(3 << 20)
    assert inside("cat", input=data).stdout == data
    slow = "sleep 1; sha256sum; sleep 0.2; head -c 1000000 /dev/zero >&2"
    done = inside("sh", "-c", slow, input=data)
    assert done.text.split()[0] == hashlib.sha256(data).hexdigest()
    assert len(done.stderr) == 1_000_000


def test_surroundings_come_along(own: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert inside("pwd").text.strip() == str(tmp_path)
    words = inside("sh", "-c", 'echo "$VMHOST_LAB $OWN ${VMHOST_LAB_DIR-none}"', env={"OWN": "x y"}).text
    assert words.strip() == "own x y none"


def test_commands_run_side_by_side(own: Lab) -> None:
    _side_by_side("six", 6)


def _side_by_side(name: str, count: int) -> None:
    """Run so many commands, each of which ends when all have begun."""
    script = f"touch /run/{name}-$$; while [ $(ls -d /run/{name}-* | wc -l) -lt {count} ]; do sleep 0.1; done"
    line = [sys.executable, "-c", f"from vmhost import lab; lab.replace_by('own', ['sh', '-c', {script!r}])"]
    children = [command.spawn(line, cwd=TOP) for _ in range(count)]
    assert [child.wait(100) for child in children] == [0] * count


def test_a_signal_is_handed_on(own: Lab) -> None:
    script = "trap 'exit 9' TERM; echo $$ >/run/trapped; while :; do sleep 0.1; done"
    line = [sys.executable, "-c", f"from vmhost import lab; lab.replace_by('own', ['sh', '-c', {script!r}])"]
    with command.spawn(line, cwd=TOP) as child:
        _until_there("/run/trapped")
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(60) == 9


def test_a_killed_caller_leaves_the_line_clean(own: Lab) -> None:
    """Half of the output is under way when the caller dies; the next one on the line sees nothing of it."""
    script = "echo x >/run/flood; exec cat /dev/zero"
    line = [sys.executable, "-c", f"from vmhost import lab; lab.replace_by('own', ['sh', '-c', {script!r}])"]
    for _ in range(3):
        with command.spawn(line, cwd=TOP) as child:
            _until_there("/run/flood")
            os.kill(child.pid, signal.SIGKILL)
            child.wait(5)
        assert inside("echo", "clean").stdout == b"clean\n"
    # Whoever takes a line next ends what was left running on it, whichever line that was.
    _side_by_side("all", LINES)
    assert inside("sh", "-c", "pgrep -c '^cat$' || true").text.strip() == "0"


def test_a_shell_has_a_terminal(own: Lab) -> None:
    code = "from vmhost import lab; lab.replace_by('own', ['sh', '-c', 'test -t 0 && stty size && tty; exit 5'])"
    with on_a_terminal([sys.executable, "-c", code]) as typist:
        typist.until("/dev/pts/")
        assert typist.end() == 5


def test_a_killed_kernel_leaves_nothing(roots: Path) -> None:
    found = lab.up("dies", kernel=Kernel.UML)
    os.kill(found.pid, signal.SIGKILL)
    assert eventually(lambda: lab.find("dies").status is Status.DEAD, seconds=30)
    lab.down("dies")
    assert remains(found) == ()
    with pytest.raises(NotFound):
        lab.find("dies")


def test_the_starter_may_be_killed(roots: Path) -> None:
    script = "from vmhost import lab; from vmhost.lab import Kernel; lab.up('half', kernel=Kernel.UML)"
    for delay in (0.0, 0.5, 2.0):
        with command.spawn([sys.executable, "-c", script], cwd=TOP) as child:
            assert eventually((roots / "labs" / "half").exists, seconds=60)
            time.sleep(delay)
            os.kill(child.pid, signal.SIGKILL)
            child.wait(5)
        found = lab.find("half")
        lab.down("half")
        assert remains(found) == ()
        assert not found.directory.exists()


def test_a_line_without_a_lab(roots: Path, tmp_path: Path) -> None:
    from vmhost.lab.uml.client import call

    with pytest.raises(Unreachable):
        call(tmp_path, "gone", ["true"], {}, "/")


def test_a_directory_that_a_kernel_cannot_name(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMHOST_LAB_DIR", str(roots / "with blank"))
    with pytest.raises(UsageError, match="blanks"):
        lab.up("odd", kernel=Kernel.UML)
    assert not (roots / "with blank").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user")
def test_an_ordinary_user_has_one_without_rights(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not even user namespaces: nobody's ids, no capabilities, no /dev/net/tun."""
    nobody = pwd.getpwnam("nobody")
    root = Path("/tmp") / f"vmhost-user-{os.getpid()}"
    root.mkdir()
    os.chown(root, nobody.pw_uid, nobody.pw_gid)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from vmhost import lab; from vmhost.lab import Kernel\n"
        "lab.up('mine', kernel=Kernel.UML)\n"
        "print(lab.run_inside('mine', ['virsh', 'uri'], timeout=60).text.strip())\n"
        "print(lab.run_inside('mine', ['id', '-u'], timeout=60).text.strip())\n"
        "lab.run_inside('mine', 'ip link add b0 type bridge vlan_filtering 1'.split(), timeout=60)\n"
        "lab.down('mine'); print(lab.labs())\n"
    )
    drop = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--bounding-set=-all"]
    env = {"HOME": str(root), "VMHOST_LAB_DIR": str(root / "labs"), "VMHOST_IMAGE_CACHE": str(root / "images")}
    env |= {"XDG_CACHE_HOME": str(root / "cache")}
    try:
        line = [*drop, "/usr/bin/python3", "-I", "-c", script, str(TOP)]
        done = command.run(line, timeout=150, env=env, cwd="/")
        assert done.text.splitlines() == ["qemu:///system", "0", "()"]
    finally:
        command.run(["rm", "-rf", str(root)], timeout=20)


def _until_there(path: str) -> None:
    assert eventually(lambda: inside("rm", path, check=False).code == 0, seconds=60), f"{path} never came"
