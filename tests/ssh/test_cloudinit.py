"""cloud-init's verdict: what its own files mean, and the command that waits for them."""

from __future__ import annotations

import json
import os
import re
import shlex
import threading
import time
from pathlib import Path

import pytest

from vmhost.drivers.ssh.session import SshSession
from vmhost.model.errors import DriverError
from vmhost.model.shell import Verdict, VerdictState
from vmhost.render.parse.cloudinit import VERDICT_ARGV, VERDICT_END, parse_verdict, parse_verdict_output, verdict_output

CAPTURED = Path(__file__).parent / "cloud-init-22.4"


def captured(name: str) -> tuple[bytes, bytes, list[str]]:
    folder = CAPTURED / name
    lines = (folder / "warnings.log").read_text().splitlines()
    return (folder / "result.json").read_bytes(), (folder / "status.json").read_bytes(), lines


def newer(status: bytes, **recoverable: list[str]) -> bytes:
    """What 23.4 makes of a status: each stage keeps its recoverable errors (cloudinit/cmd/main.py, status_wrapper)."""
    document = json.loads(status)
    for name, stage in document["v1"].items():
        if isinstance(stage, dict):
            stage["recoverable_errors"] = recoverable if name == "modules-config" else {}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("name", "state", "errors", "warnings"),
    [
        ("done", VerdictState.DONE, [], []),
        ("degraded", VerdictState.DEGRADED, [], ["WARNING: Failed loading yaml blob. Invalid format at line 3"]),
        ("error", VerdictState.ERROR, ["package_update_upgrade_install"], []),
        ("crash", VerdictState.ERROR, ["stage fell over"], ["WARNING: failed stage modules-final"]),
    ],
)
def test_the_verdict_of_22_4(name: str, state: VerdictState, errors: list[str], warnings: list[str]) -> None:
    verdict = parse_verdict(*captured(name))
    assert verdict.state is state
    assert len(verdict.errors) == len(errors)
    assert all(word in text for word, text in zip(errors, verdict.errors, strict=True))
    assert list(verdict.warnings) == warnings
    assert verdict.datasource == "DataSourceNoCloud [seed=/dev/vdb][dsmode=net]"


def test_from_23_4_on_the_status_says_what_was_recovered_from_and_the_log_does_not_count() -> None:
    result, status, _ = captured("done")
    noise = ["2026-01-01 00:00:00,000 - util.py[WARNING]: only in the log"]
    assert parse_verdict(result, newer(status), noise).state is VerdictState.DONE
    verdict = parse_verdict(result, newer(status, DEPRECATED=["old key"], WARNING=["odd", "odd"]), noise)
    assert verdict == Verdict(
        VerdictState.DEGRADED, (), ("DEPRECATED: old key", "WARNING: odd"), json.loads(result)["v1"]["datasource"]
    )


def test_warnings_of_an_earlier_boot_do_not_count() -> None:
    result, status, lines = captured("degraded")
    assert parse_verdict(result, status, [*lines, *captured("done")[2]]).state is VerdictState.DONE


@pytest.mark.parametrize("result", [b"", b"{", b"[]", b"{}", b'{"v1": []}', b'{"v2": {}}', b"\xff\x00"])
def test_a_report_that_makes_no_sense_is_an_error_that_says_so(result: bytes) -> None:
    for verdict in (parse_verdict(result, captured("done")[1]), parse_verdict(captured("done")[0], result)):
        assert verdict.state is VerdictState.ERROR
        assert verdict.errors[0].startswith("cloud-init's report cannot be read")


@pytest.mark.parametrize("name", ["done", "degraded", "error", "crash"])
def test_the_output_of_the_command_is_read_back(name: str) -> None:
    result, status, lines = captured(name)
    output = verdict_output(result, status, "\n".join(lines).encode())
    assert parse_verdict_output(output) == parse_verdict(result, status, lines)


def test_a_log_line_that_looks_like_a_section_changes_nothing() -> None:
    result, status, _ = captured("error")
    output = verdict_output(result, status, verdict_output(*captured("done")[:2]))
    assert parse_verdict_output(output).state is VerdictState.ERROR


@pytest.mark.parametrize("output", [b"", b"noise of a profile\n", verdict_output(b"", b"")])
def test_an_output_that_was_cut_short_is_an_error(output: bytes) -> None:
    assert parse_verdict_output(output).state is VerdictState.ERROR


def in_a_guest_of_its_own(before: str) -> tuple[str, ...]:
    """The command, where /run, /var/lib and /var/log are empty; ``before`` runs in that place first."""
    unshare = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--mount", "--map-root-user")
    places = "for d in /run /var/lib /var/log; do mount -t tmpfs tmpfs $d || exit 99; done"
    files = "mkdir -p /run/cloud-init /var/lib/cloud/data"
    return (*unshare, "sh", "-c", f"{places}; {files}; {before}\nexec {shlex.join(VERDICT_ARGV)}")


def install(name: str, *, result: bool = True) -> str:
    """Shell that puts a captured report in place the way cloud-init does: a rename, then a symbolic link."""
    data = "/var/lib/cloud/data"
    status = f"cp {CAPTURED / name / 'status.json'} {data}/status.json"
    log = f"cp {CAPTURED / name / 'warnings.log'} /var/log/cloud-init.log"
    final = f"cp {CAPTURED / name / 'result.json'} {data}/t; mv {data}/t {data}/result.json"
    link = "ln -s ../../var/lib/cloud/data/result.json /run/cloud-init/result.json"
    return "; ".join([status, log, *([final, link] if result else [])])


@pytest.mark.serial  # it looks at the clock
@pytest.mark.parametrize("name", ["done", "degraded", "error"])
def test_the_command_answers_at_once_when_cloud_init_has_ended(session: SshSession, name: str) -> None:
    answer = session.run(in_a_guest_of_its_own(install(name)), timeout=20)
    assert parse_verdict_output(answer.stdout) == parse_verdict(*captured(name))
    assert answer.seconds < 2


def test_the_command_tells_where_the_last_boot_begins(session: SshSession) -> None:
    """Version 22.4, as in Debian 12, has its warnings in the log only, and appends to it at each boot."""
    result, status, lines = captured("degraded")
    status = re.sub(rb'"recoverable_errors"', b'"unknown_to_22.4"', status)
    later = "2026-11-21 12:57:40,067 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local' at now"
    log = "\n".join((*lines, later, "2026-11-21 12:57:41,000 - util.py[WARNING]: after it", ""))
    files = {"data/result.json": result, "data/status.json": status, "log": log.encode()}
    places = {"log": "/var/log/cloud-init.log"}
    before = "; ".join(
        f"printf %s {shlex.quote(data.decode())} >{places.get(name, '/var/lib/cloud/' + name)}"
        for name, data in files.items()
    )
    verdict = parse_verdict_output(session.run(in_a_guest_of_its_own(before), timeout=20).stdout)
    assert (verdict.state, verdict.warnings) == (VerdictState.DEGRADED, ("WARNING: after it",))


@pytest.mark.serial  # it looks at the clock
def test_the_command_answers_when_the_result_appears(session: SshSession, area: Path) -> None:
    """Stages write status.json anew; the answer comes with result.json and not before."""
    stamp = area / "stamp"
    # The moment is written down first: the answer does not wait for what comes behind the result.
    later = f"(sleep 0.3; {install('done', result=False)}; sleep 0.4; date +%s.%N >{stamp}; {install('done')}) &"
    answer = session.run(in_a_guest_of_its_own(f"{install('done', result=False)}; {later}"), timeout=20)
    lag = time.time() - float(stamp.read_text())
    assert parse_verdict_output(answer.stdout).state is VerdictState.DONE
    assert answer.stdout.endswith(VERDICT_END)
    assert answer.seconds > 0.6
    assert lag < 0.5


@pytest.mark.parametrize("before", ["touch /run/cloud-init/disabled", "rmdir /run/cloud-init"])
def test_a_guest_without_cloud_init_does_not_wait(session: SshSession, before: str) -> None:
    answer = session.run(in_a_guest_of_its_own(before), timeout=20)
    assert parse_verdict_output(answer.stdout).state is VerdictState.DISABLED


def watchers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"tail" and b"/var/lib/cloud/data/result.json" in words:
            found.append(path.parent.name)
    return found


def test_giving_up_leaves_no_process_in_the_guest(session: SshSession) -> None:
    with pytest.raises(DriverError, match="no end within"):
        session.run(in_a_guest_of_its_own(install("done", result=False)), timeout=0.7)
    until = time.monotonic() + 30
    while watchers() and time.monotonic() < until:
        threading.Event().wait(0.02)
    assert not watchers()
