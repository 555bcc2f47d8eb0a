"""Ctrl-C and SIGTERM at moments of an apply and of a shut-down; secrets that nothing may keep; the modes of files."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from tests.labfixture import InLab
from tests.reliability.scene import apply, just_before, killed, look, remove, site_file, started, told, vmhost
from vmhost.cli import diagnostics
from vmhost.drivers.command import CommandFailed, run
from vmhost.model.errors import Conflict
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site
from vmhost.testing.faults import FaultPlan, FaultyPorts, SimulatedKill

pytestmark = pytest.mark.lab

AGENT = "{by: agent, timeout: 5m}"
STEPS = ("new storage pool", "disk root", "seed", "new guest")
CANARY = "VMHOST_TEST_CANARY"


# ---- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "number"), list(zip(STEPS, itertools.cycle([signal.SIGINT, signal.SIGTERM]), strict=False))
)
def test_an_interrupted_create_leaves_nothing(real: Host, tmp_path: Path, moment: str, number: signal.Signals) -> None:
    """The signal comes right after the step of that name was told, while the next one is under way.

    On a busy machine it may come too late, behind the commit point: then that is heard, and it is tried again.
    """
    before = look(real)
    site = site_file(tmp_path, "shop", "web", ready=AGENT)
    for _ in range(5):
        with started("apply", str(site), "--yes") as command:
            command.until(moment)
            command.send(number)
            code = command.end()
        assert code == diagnostics.INTERRUPTED, command.talk
        if "what was done stays, only the waiting for web ended" in command.talk:
            remove(real, "web")
            continue
        assert "what had been done was undone" in command.talk
        assert look(real) == before, command.talk
        return
    pytest.fail(f"the signal came too late each time: {command.talk}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_guest_that_never_answers_stays_when_the_waiting_is_interrupted(
    real: Host, tmp_path: Path, number: signal.Signals
) -> None:
    site = site_file(tmp_path, "shop", "web", ready=AGENT)
    with started("apply", str(site), "--yes") as command:
        command.until("web: agent:")
        command.send(number)
        sent = time.monotonic()
        code = command.end()
        assert time.monotonic() - sent < 10
    assert code == diagnostics.INTERRUPTED
    assert "what was done stays, only the waiting for web ended" in command.talk
    assert "undone" not in command.talk
    assert not real.interrupted()
    rows = {row.name: row for row in real.guests()}
    assert (rows["web"].state, "pending" in rows["web"].flags) == ("running", True)
    assert real.plan(load_site(site)).plan.after[0].why.startswith("web: wait for")
    remove(real, "web")


def test_a_second_signal_leaves_at_once_and_recover_finds_what_is_left(real: Host, tmp_path: Path) -> None:
    before = look(real)
    with started("apply", str(site_file(tmp_path, "shop", "a", "b", "c")), "--yes") as command:
        command.until("a: start")
        command.send(signal.SIGINT)
        command.until("Ctrl-C again")
        command.send(signal.SIGINT)
        assert command.end() == diagnostics.INTERRUPTED
    real.recover()
    assert look(real) == before


def test_a_signal_that_the_parent_has_us_ignore_stays_ignored(real: Host, tmp_path: Path) -> None:
    """As for a command that a shell starts in the background, or that timeout(1) --foreground protects."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with started("apply", str(site_file(tmp_path, "shop", "web")), "--yes") as command:
            command.until("disk root")
            command.send(signal.SIGINT)
            assert command.end() == 0, command.talk
    finally:
        signal.signal(signal.SIGINT, old)
    remove(real, "web")


def test_an_interrupted_shut_down_ends_the_waiting_only(real: Host, lab: InLab, tmp_path: Path) -> None:
    apply(real, site_file(tmp_path, "shop", "deaf-1", "deaf-2"))
    with started("guest", "stop", "deaf-1", "deaf-2", "--timeout", "2m") as command:
        assert until_both_jobs_run(real)
        command.send(signal.SIGINT)
        sent = time.monotonic()
        code = command.end()
        assert time.monotonic() - sent < 10
    assert code == diagnostics.INTERRUPTED, command.talk
    assert "deaf-1" in command.talk
    for name in ("deaf-1", "deaf-2"):
        assert lab.virsh("domstate", name).text.strip() == "running"
    remove(real, "deaf-1", "deaf-2")


def until_both_jobs_run(host: Host) -> bool:
    """Wait until two processes' or threads' jobs are at work."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if sum(job.state == "running" and job.kind.startswith("stop") for job in host.jobs()) == 2:
            return True
        threading.Event().wait(0.05)
    return False


def test_what_was_interrupted_is_settled_before_the_next_command_plans(real: Host, tmp_path: Path) -> None:
    """A killed apply that had done everything but had not come to its commit point counts as not done."""
    site = site_file(tmp_path, "shop", "web")
    killed(site, "hypervisor.start")
    assert real.interrupted()
    listed = vmhost("guest", "list")
    assert listed.code == 0
    assert "an operation was interrupted; vmhost recover settles it" in told(listed)
    done = vmhost("apply", str(site), "--yes")
    assert done.code == 0, told(done)
    assert "interrupted" in told(done)
    assert not real.interrupted()
    assert [row.state for row in real.guests() if row.name == "web"] == ["running"]
    remove(real, "web")


def test_an_apply_that_was_killed_right_before_its_commit_point_was_not_done(real: Host, tmp_path: Path) -> None:
    """The guest is there and runs, so a plan is empty; yet the next apply undoes it, and says that the host changed."""
    before = look(real)
    site = load_site(site_file(tmp_path, "shop", "web"))
    steps = len(real.plan(site).plan.steps)
    appends = itertools.count()

    def is_the_commit(port: str, method: str) -> bool:
        return (port, method) == ("journal", "append") and next(appends) == 1 + 2 * steps

    dying = Host(ports=FaultyPorts(real.ports, FaultPlan(at=0, only=is_the_commit)).ports)
    proposal = dying.plan(site)
    with pytest.raises(SimulatedKill):
        dying.apply(proposal)
    del dying
    gc.collect()  # the journal of the dead is nobody's
    assert real.interrupted()
    empty = real.plan(site)
    assert empty.empty
    with pytest.raises(Conflict, match="since the plan was shown; nothing was done"):
        real.apply(empty)
    assert look(real) == before


# ---- secrets and modes ---------------------------------------------------------------------------------------------


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Collect the command lines of all processes while the block runs."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def collect() -> None:
        while not ended.wait(0.005):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def everything_below(*places: Path) -> dict[Path, bytes]:
    """The content of all files below these directories; some come and go meanwhile.

    A database is read by another process: closing its file here would drop the locks of those who have it open here
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """

    def content(path: Path) -> bytes:
        return run(["cat", str(path)], timeout=30).stdout if ".sqlite3" in path.name else path.read_bytes()

    found: dict[Path, bytes] = {}
    for path in (Path(top, name) for place in places for top, _, names in os.walk(place) for name in names):
        try:
            if path.is_file() and not path.is_symlink():
                found[path] = content(path)
        except (FileNotFoundError, CommandFailed):
            if path.exists():
                raise
    return found


def test_secrets_are_in_the_seed_and_nowhere_else(real: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"canary-{token_hex(16)}"
    monkeypatch.setenv(CANARY, secret)
    content = f"{{files: [{{path: /etc/token, mode: '0600', secret: {{env: {CANARY}}}}}]}}"
    site = site_file(tmp_path, "shop", "web", cloud_init=content)
    layout = real.ports.layout
    journals: dict[Path, bytes] = {}

    def keep_the_journal() -> None:
        journals.update(everything_below(layout.state / "journal"))

    with command_lines() as lines:
        proposal = real.plan(load_site(site))
        assert secret not in repr(proposal)
        assert secret not in str(proposal.as_json())
        just_before(real, "hypervisor", "start", keep_the_journal).apply(proposal)
        done = vmhost("plan", str(site), "-o", "json")
    private = next(value for value in proposal.secrets.values() if "PRIVATE KEY" in value)
    body = private.splitlines()[2]
    assert any(path.suffix == ".jsonl" for path in journals), "there was a journal to look into"

    observed = real.observe()
    seed = next(Path(v.path) for p in observed.pools for v in p.volumes if v.name.endswith("-seed.iso"))
    assert secret.encode() in seed.read_bytes()
    assert body.encode() in seed.read_bytes()

    places = (layout.state, layout.logs, layout.runtime, Path("/var/log/libvirt"), Path("/etc/libvirt"), tmp_path)
    files = {path: data for path, data in everything_below(*places, Path("/run/libvirt")).items() if path != seed}
    for needle in (secret.encode(), body.encode()):
        assert [path for path, data in {**files, **journals}.items() if needle in data] == []
        assert not any(needle in line for line in lines)
        assert needle not in done.stdout + done.stderr
    assert any(b"qemu-system" in line for line in lines), "QEMU's own command line was among them"
    for domain in observed.domains:
        assert secret not in domain.raw.xml + domain.raw.live_xml
    remove(real, "web")


def test_what_holds_secrets_is_readable_by_its_owner_alone(real: Host, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        apply(real, site_file(tmp_path, "shop", "web"))
    finally:
        os.umask(old)
    layout = real.ports.layout
    seed = next(v.path for p in real.observe().pools for v in p.volumes if v.name.endswith("-seed.iso"))
    modes = {
        Path(seed): 0o600,
        layout.state / "keys": 0o700,
        layout.state / "keys" / "shop.key": 0o600,
        layout.state / "journal": 0o700,
        layout.runtime / "locks": 0o700,
    }
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in modes} == modes
    remove(real, "web")


def test_a_secret_that_is_missing_is_said_before_anything_is_done(real: Host, tmp_path: Path) -> None:
    content = "{files: [{path: /etc/token, secret: {env: VMHOST_TEST_NOT_SET}}]}"
    site = site_file(tmp_path, "shop", "web", cloud_init=content)
    done = vmhost("apply", str(site), "--yes")
    assert done.code == diagnostics.UNREACHABLE, told(done)
    assert "VMHOST_TEST_NOT_SET" in told(done)
