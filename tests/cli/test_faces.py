"""What every command keeps to: exit codes, no control bytes, quick help, Ctrl-C, a reader that leaves, surprises."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.session import SITE, Terminal
from vmhost.cli import diagnostics
from vmhost.cli.main import run
from vmhost.cli.output import table
from vmhost.model import errors
from vmhost.model.identity import console_log
from vmhost.testing import builders
from vmhost.testing.demo import demo_host

CODES = {
    "VmhostError": 1,
    "SpecError": 2,
    "UsageError": 2,
    "NotFound": 3,
    "Refused": 4,
    "Conflict": 4,
    "NoCapacity": 4,
    "Protected": 4,
    "DriverError": 5,
    "Unreachable": 5,
    "Silent": 5,
    "HostKeyMismatch": 5,
    "PermissionDenied": 5,
    "Absent": 5,
    "AlreadyThere": 5,
    "InUse": 5,
    "ApplyError": 6,
    "VerifyError": 9,
    "GuestError": 8,
    "PartlyDone": 11,
    "Cancelled": 130,
    "DamagedData": 12,
    "DrillFailed": 12,
}
HEAVY = ("libvirt", "textual", "pydantic", "jinja2", "paramiko", "pyroute2", "requests", "lxml", "rich", "ruamel")
HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9bd\u202ee\rf\x7fg"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def process(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a vmhost on the demonstration's host."""
    code = "from vmhost.cli.entry import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "-c", "fake:demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "SUDO_USER": "ann", **environment},
        cwd=Path(__file__).parents[2],
    )


def begun(running: subprocess.Popen[bytes]) -> None:
    """Wait until it has told its first step, and read no more: soon it cannot go on before somebody reads the rest."""
    assert running.stderr is not None
    fcntl.fcntl(running.stderr, fcntl.F_SETPIPE_SZ, 4096)
    assert os.read(running.stderr.fileno(), 4) == b"[ 1/"


def test_every_class_of_error_has_its_code() -> None:
    classes = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.VmhostError) and kind.__module__ == errors.__name__
    }
    assert classes == set(CODES)


@pytest.mark.parametrize("name", CODES)
def test_an_error_becomes_its_exit_code_and_says_what_to_type(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = getattr(errors, name)
    error = kind([errors.Fault("a", "b")]) if name == "SpecError" else kind("x", **_more(name))
    assert diagnostics.report(error) == CODES[name]
    assert "\n  try: vmhost " in capsys.readouterr().err
    assert CODES[name] in diagnostics.EXIT_CODES


def _more(name: str) -> dict[str, object]:
    return {"failures": {}} if name == "PartlyDone" else {}


def test_leftovers_have_a_code_of_their_own() -> None:
    assert diagnostics.exit_code(errors.ApplyError("x", leftovers=["virsh undefine x"])) == 10


def test_what_failed_for_damaged_data_has_its_code() -> None:
    error = errors.ApplyError("x")
    error.__cause__ = errors.DamagedData("y")
    assert diagnostics.exit_code(error) == 12


def test_no_control_byte_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    details = {"subject": HOSTILE, "hint": HOSTILE}
    for error in (
        errors.Conflict(HOSTILE, **details),
        errors.GuestError(HOSTILE, **details, details=[HOSTILE]),
        errors.VerifyError(HOSTILE, **details, differences=[HOSTILE]),
        errors.ApplyError(HOSTILE, **details, undone=[HOSTILE], leftovers=[HOSTILE]),
        errors.PartlyDone(HOSTILE, failures={HOSTILE: errors.NotFound(HOSTILE)}),
        errors.SpecError([errors.Fault(HOSTILE, HOSTILE)], subject=HOSTILE),
    ):
        diagnostics.report(error)
    diagnostics.unexpected(ValueError(HOSTILE))
    table(("NAME",), [(HOSTILE,)])
    told = "".join(capsys.readouterr())
    assert "a\\x1b[31mb" in told
    assert not CONTROL.search(told)


def test_hostile_guests_cannot_speak_to_the_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    host = demo_host()
    domain = host.world.domains[host.domain("web-01").uuid]
    host.world.consoles[console_log(builders.LOGS, domain.uuid)] = [HOSTILE, "login:"]
    domain.name = HOSTILE
    monkeypatch.setattr("vmhost.testing.demo.demo_ports", lambda _uri: host.ports)
    for arguments in (
        ("guest", "list"),
        ("guest", "list", "-o", "name"),
        ("guest", "list", "-o", "json"),
        ("guest", "list", "-o", "yaml"),
        ("guest", "show", HOSTILE),
        ("guest", "show", HOSTILE, "-o", "yaml"),
        ("guest", "show", domain.uuid, "-o", "json"),
        ("guest", "stop", HOSTILE + "x"),
        ("guest", "delete", HOSTILE, "--dry-run", "--power-off"),
        ("image", "list"),
        ("plan", HOSTILE),
        (HOSTILE,),
    ):
        code, out, err = terminal.run(*arguments)
        assert not CONTROL.search(out + err), arguments
        assert code in (0, 2, 3)


@pytest.mark.parametrize("name", ["$(touch x)", "a;b", "-rf 'x'"])
def test_a_hint_can_be_typed_whatever_others_call_their_guests(
    name: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = demo_host()
    domain = host.world.domains[host.domain("jenkins").uuid]
    domain.name = name
    monkeypatch.setattr("vmhost.testing.demo.demo_ports", lambda _uri: host.ports)
    for words in (("stop",), ("delete", "--yes"), ("exec",)):
        rest = ("true",) if words == ("exec",) else ()
        code, _, told = terminal.run("guest", *words, "--", name, *rest)
        hint = next(line for line in told.splitlines() if line.startswith("  try: "))
        assert shlex.split(hint)[-1] == name, (words, told)
        assert code in (4, 255)


def test_documents_have_stable_keys(terminal: Terminal) -> None:
    for arguments, kind in (
        (("guest", "list"), "GuestList"),
        (("guest", "show", "web-01"), "Guest"),
        (("image", "list"), "ImageList"),
        (("host", "show"), "Host"),
        (("host", "doctor"), "Findings"),
        (("job", "list"), "JobList"),
        (("job", "show", "20260101-000150-c3"), "Job"),
    ):
        document = json.loads(terminal.run(*arguments, "-o", "json")[1])
        assert list(document) == ["apiVersion", "kind", "data"]
        assert (document["apiVersion"], document["kind"]) == ("vmhost/v1", kind)


def test_a_surprise_is_one_sentence(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(_uri: str) -> None:
        raise RuntimeError("what\nnobody foresaw")

    monkeypatch.setattr("vmhost.testing.demo.demo_ports", surprise)
    monkeypatch.delenv("VMHOST_DEBUG", raising=False)
    code, out, err = terminal.run("guest", "list")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "vmhost: unexpected failure: RuntimeError: what\\x0anobody foresaw"
    assert "Traceback" not in err


def _modules(arguments: tuple[str, ...]) -> set[str]:
    code = (
        "import sys; from vmhost.cli.main import run; code = run(sys.argv[1:]);"
        "print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules}))); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("guest", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert _modules(arguments).isdisjoint(HEAVY)


def test_a_listing_imports_libvirt_and_little_else() -> None:
    uri = f"test://{Path(__file__).parent / 'node.xml'}"
    heavy = _modules(("-c", uri, "guest", "list")) & set(HEAVY)
    assert heavy <= {"libvirt", "lxml"}


def test_a_reader_that_leaves_is_no_failure_to_talk_about() -> None:
    running = process("guest", "list", "-o", "json")
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == b""
    assert running.wait(20) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_undoes_everything_and_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    state, site = tmp_path / "host.json", tmp_path / "site.yaml"
    running = process("guest", "list", "-o", "name", VMHOST_FAKE_STATE=str(state))
    before, _ = running.communicate(timeout=20)
    guests = "".join(f"  many-{count:02}:\n" for count in range(60))
    site.write_text(SITE + guests, encoding="utf-8")
    running = process("apply", str(site), "--yes", VMHOST_FAKE_STATE=str(state))
    begun(running)
    running.send_signal(number)
    _, err = running.communicate(timeout=50)
    assert running.returncode == 130, err.decode()
    assert b"undone: many-00: disk root" in err
    after = process("guest", "list", "-o", "name", VMHOST_FAKE_STATE=str(state)).communicate(timeout=20)[0]
    assert after == before
    world = json.loads(state.read_text(encoding="utf-8"))
    assert world["journals"] == {}
    assert not [name for name in world["pools"]["vmhost"]["volumes"] if "many" in name]


def test_after_a_kill_the_same_command_succeeds(tmp_path: Path) -> None:
    state, site = tmp_path / "host.json", tmp_path / "site.yaml"
    long = "of-so-long-a-name-that-what-is-told-of-them-is-long-too"
    guests = "".join(f"  g-{count:02}-{long}: {{ready: {{by: none}}}}\n" for count in range(12))
    site.write_text(SITE + guests, encoding="utf-8")
    running = process("apply", str(site), "--yes", VMHOST_FAKE_STATE=str(state))
    begun(running)
    running.kill()
    running.communicate(timeout=20)
    assert json.loads(state.read_text(encoding="utf-8"))["journals"] != {}
    running = process("guest", "list", VMHOST_FAKE_STATE=str(state))
    assert b"vmhost recover settles it" in running.communicate(timeout=20)[1]
    running = process("apply", str(site), "--yes", VMHOST_FAKE_STATE=str(state))
    out, err = running.communicate(timeout=50)
    assert running.returncode == 0, err.decode()
    assert f"undone: g-00-{long}: disk root".encode() in err
    assert out


def test_no_colour_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not diagnostics.colour(stream_is_terminal=True)
    assert run(["--help"]) == 0
