"""vmhost lab, as typed."""

from __future__ import annotations

import json

import pytest

from tests.terminal import on_a_terminal
from vmhost.drivers import command
from vmhost.drivers.command import Completed

pytestmark = [pytest.mark.serial, pytest.mark.timeout(180)]

NO_NAME = "not a name for a lab: letters, digits, '.', '_' and '-', at most 63"


@pytest.fixture
def typed(lab_root, vmhost):
    def run(*words: str, input: bytes | None = None) -> Completed:  # noqa: A002 - as in run
        return command.run([*vmhost, "lab", *words], timeout=100, check=False, input=input)

    return run


def test_a_day_in_the_lab(typed):
    up = typed("up", "day", "--bridge")
    assert (up.code, up.text) == (0, "")
    assert up.stderr.decode().splitlines() == [
        "lab day is up, with the bridge br-lab, 10.99.0.1/24",
        "  vmhost lab exec day -- vmhost guest list     a command in it",
        "  vmhost lab shell day                         a shell in it",
        "  vmhost lab down day                          the end of it, with all that is in it",
    ]
    assert typed("list", "-o", "name").text == "day\n"
    assert typed("list").text.splitlines()[1].split()[:2] == ["day", "ready"]
    listed = json.loads(typed("list", "-o", "json").text)
    assert listed["apiVersion"] == "vmhost/v1"
    assert [(item["name"], item["status"]) for item in listed["data"]] == [("day", "ready")]
    assert typed("exec", "day", "--", "ip", "-br", "-4", "address", "show", "br-lab").text.split()[2] == "10.99.0.1/24"
    assert typed("exec", "day", "virsh", "uri").text.strip() == "qemu:///system"
    assert typed("exec", "day", "--", "sh", "-c", "cat; exit 7", input=b"in").code == 7
    assert typed("exec", "day", "--", "cat", "--", "/dev/null", "-").code == 0
    assert typed("down", "day").code == 0
    assert typed("list", "-o", "name").text == ""


def test_names_may_be_left_out(typed):
    assert typed("up").code == 0
    assert typed("list", "-o", "name").text == "lab\n"
    assert typed("down").code == 0


def test_several_go_at_once(typed):
    typed("up", "a")
    typed("up", "b")
    assert typed("down", "a", "b").code == 0
    assert typed("list", "-o", "name").text == ""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("down", "x"), 3, "vmhost: x: no such lab\n  try: vmhost lab list\n"),
        (("exec", "x", "--", "true"), 3, "vmhost: x: no such lab\n  try: vmhost lab list\n"),
        (("shell", "x"), 3, "vmhost: x: no such lab\n  try: vmhost lab list\n"),
        (("up", "../x"), 2, f"vmhost: '../x': {NO_NAME}\n  try: vmhost lab up lab\n"),
    ],
)
def test_errors(typed, words, code, told):
    done = typed(*words)
    assert (done.code, done.text, done.stderr.decode()) == (code, "", told)


def test_no_command(typed):
    assert typed("exec", "x", "--").code == 2
    assert typed("exec", "x").code == 2


def test_shell_on_a_terminal(typed, vmhost):
    """Ctrl-C ends the command in the shell, not the shell."""
    typed("up", "tty")
    with on_a_terminal([*vmhost, "lab", "shell", "tty"], {"SHELL": "/bin/bash"}) as person:
        person.type("sh -c 'echo asleep-$((5*5)); exec sleep 50'\n")
        person.until("asleep-25")
        person.type("\x03")
        person.type("echo $VMHOST_LAB-$((6*7))\n")
        person.until("tty-42")
        person.type("exit 5\n")
        assert person.end() == 5
    assert "sleep 50" not in typed("exec", "tty", "--", "ps", "ax", "-o", "args=").text
