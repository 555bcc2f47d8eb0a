"""cloud-init's own report of a boot: the command that waits for it in the guest, and its meaning.

The files and their fields: https://cloudinit.readthedocs.io/en/latest/explanation/failure_states.html. ``degraded``
(with ``recoverable_errors`` in status.json) exists from 23.4; before that, warnings are in the log only.
"""

from __future__ import annotations

import json
from typing import Any, Final

from vmhost.model.shell import Verdict, VerdictState

_RESULT: Final = "### vmhost result"
_STATUS: Final = "### vmhost status"
_LOGGED: Final = "### vmhost log "
_END: Final = "### vmhost end"
_DISABLED: Final = "### vmhost disabled"

_BOOT: Final = "running 'init-local'"
_WARNINGS_LIMIT: Final = 20

# The wait is event-driven: tail uses inotify, but only if one of its files is there when it begins. status.json is,
# from cloud-init's first stage on, and is written anew at the end of each stage; result.json is the last thing that
# cloud-init writes, with a line feed (cloudinit/cmd/main.py). Both are watched under their own names: for the
# symbolic links in /run/cloud-init tail would poll.
#
# To begin a process takes long in a guest that is still busy booting. So the log's warnings are followed from the
# start, by the same tail, which keeps the order of what was written to its files; and at the end the shell reads the
# reports by itself. grep would not see that its reader has gone: tail is ended by hand. The log may be readable for
# root and group adm only; it is searched once more only where status.json has no warnings of its own.
_SCRIPT: Final = f"""\
d=/var/lib/cloud/data l=/var/log/cloud-init.log w="\\[(WARNING|ERROR|CRITICAL)\\]|{_BOOT}" p= old=y
if test -e /run/cloud-init/disabled || ! test -d /run/cloud-init; then echo '{_DISABLED}'; exit 0; fi
show() {{
while IFS= read -r x || test -n "$x"; do printf '%s\\n' "$x"; case $x in *recoverable_errors*) old= ;; esac; done
}}
tell() {{
echo '{_RESULT}'; show <$d/result.json
echo '{_STATUS}'; show <$d/status.json
test -z "$old" || test -r $l || sudo -n grep -aE "$w" $l | sed 's/^/{_LOGGED}/'
echo '{_END}'
}}
{{
timeout 7200 sh -c "echo \\$\\$; exec tail -q -n +1 -F $l $d/status.json $d/result.json" |
grep --line-buffered -aE "^[0-9]+\\$|$w|.errors." |
while IFS= read -r x; do
if test -z "$p"; then p=$x; continue; fi
case $x in *'"errors"'*) ;; *) printf '{_LOGGED}%s\\n' "$x"; continue ;; esac
if test -e $d/result.json; then tell; kill $p; break; fi
done
}} 2>/dev/null
"""

VERDICT_ARGV: Final = ("sh", "-c", _SCRIPT)
"""The command that ends as soon as cloud-init has ended; its output is for :func:`parse_verdict_output`."""

VERDICT_END: Final = f"\n{_END}\n".encode()
"""What comes last in that output: a reader need not wait for the end of the processes, long in a busy guest."""


def verdict_output(result: bytes, status: bytes, log: bytes = b"") -> bytes:
    """Return what :data:`VERDICT_ARGV` prints in a guest with these files; an empty one is not there."""
    logged = [_LOGGED.encode() + line for line in log.splitlines()]
    return b"\n".join((*logged, _RESULT.encode(), result, _STATUS.encode(), status, _END.encode(), b""))


def parse_verdict_output(output: bytes) -> Verdict:
    """Return the verdict from what :data:`VERDICT_ARGV` printed.

    An answer that is cut short or makes no sense is an ``error`` that says so.
    """
    sections: dict[str, list[str]] = {}
    logged: list[str] = []
    name = ""
    for line in output.decode("utf-8", "replace").split("\n"):
        if line.startswith(_LOGGED):  # each has its mark, so no line of the log can begin a section
            logged.append(line.removeprefix(_LOGGED))
        elif line in {_RESULT, _STATUS, _DISABLED, _END}:
            name = line
            sections[name] = []
        elif name:
            sections[name].append(line)
    if _DISABLED in sections:
        return Verdict(VerdictState.DISABLED)
    result, status = ("\n".join(sections.get(name, ())).encode() for name in (_RESULT, _STATUS))
    return parse_verdict(result, status, logged)


def parse_verdict(result_json: bytes, status_json: bytes, log_warnings: tuple[str, ...] | list[str] = ()) -> Verdict:
    """Return cloud-init's verdict.

    :param result_json: the content of /run/cloud-init/result.json.
    :param status_json: the content of /run/cloud-init/status.json.
    :param log_warnings: the lines of its log at WARNING or above; only those of the last boot count, and only for
        versions before 23.4, which do not keep them in status.json.
    """
    try:
        result = _version_1(result_json)
        status = _version_1(status_json)
    except ValueError as error:
        return Verdict(VerdictState.ERROR, errors=(f"cloud-init's report cannot be read: {error}",))
    stages = [stage for stage in status.values() if isinstance(stage, dict)]
    errors = _unique(_texts(result.get("errors")) + [text for stage in stages for text in _texts(stage.get("errors"))])
    if any("recoverable_errors" in stage for stage in stages):
        warnings = _recoverable(stages)
    else:
        warnings = _unique(_warnings_of_last_boot(log_warnings))
    datasource = str(result.get("datasource") or "")
    if errors:
        return Verdict(VerdictState.ERROR, errors, warnings, datasource)
    return Verdict(VerdictState.DEGRADED if warnings else VerdictState.DONE, (), warnings, datasource)


def _version_1(data: bytes) -> dict[str, Any]:
    """Return the ``v1`` object of a report. :raises ValueError: there is none."""
    document = json.loads(data) if data.strip() else None
    if not isinstance(document, dict) or not isinstance(document.get("v1"), dict):
        raise ValueError("no version 1 in it" if document is not None else "it is empty")
    return dict(document["v1"])


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _recoverable(stages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Collect what the stages recovered from, each with its level: ``WARNING: ...``."""
    found = []
    for stage in stages:
        levels = stage.get("recoverable_errors")
        for level, texts in sorted(levels.items()) if isinstance(levels, dict) else ():
            found += [f"{level}: {text}" for text in _texts(texts)]
    return _unique(found)


def _warnings_of_last_boot(lines: tuple[str, ...] | list[str]) -> list[str]:
    """Take the log's lines after the last start of cloud-init, without time and place."""
    boots = [number for number, line in enumerate(lines) if _BOOT in line]
    found = []
    for line in lines[boots[-1] if boots else 0 :]:
        for level in ("WARNING", "ERROR", "CRITICAL"):
            _, mark, text = line.partition(f"[{level}]: ")
            if mark:
                found.append(f"{level}: {text.strip()}")
                break
    return found


def _unique(texts: list[str]) -> tuple[str, ...]:
    """Keep the first of equal texts, and a bounded number."""
    return tuple(dict.fromkeys(texts))[:_WARNINGS_LIMIT]
