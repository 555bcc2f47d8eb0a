"""What tests of backups put into whole guests: a database with a writer, hands inside, and looks at who somebody is."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.contract.backends import eventually
from tests.guest.conftest import VMHOST, vmhost

DATABASE = "/srv/records.db"
WRITER = f"""
import hashlib, itertools, sqlite3, time
base = sqlite3.connect("{DATABASE}", isolation_level=None)
for words in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL",
              "CREATE TABLE IF NOT EXISTS records (number INTEGER PRIMARY KEY, text TEXT, sha256 TEXT)"):
    base.execute(words)
first = base.execute("SELECT coalesce(max(number), 0) + 1 FROM records").fetchone()[0]
for number in itertools.count(first):
    text = f"record {{number}} " + "x" * (number * 7919 % 4000)
    base.execute("INSERT INTO records VALUES (?, ?, ?)", (number, text, hashlib.sha256(text.encode()).hexdigest()))
    print(number, flush=True)
    time.sleep(0.02)
"""
"""Writes records that can be checked, and says the number of each one that the database calls durable."""

CHECK = f"""
import hashlib, sqlite3
base = sqlite3.connect("{DATABASE}")
assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
rows = base.execute("SELECT number, text, sha256 FROM records ORDER BY number").fetchall()
assert all(hashlib.sha256(text.encode()).hexdigest() == sha256 for _, text, sha256 in rows)
assert [number for number, _, _ in rows] == list(range(1, len(rows) + 1))
print(len(rows))
"""

HANDS = """
import glob, os, signal, subprocess, sys
def agent():
    return [int(path.split("/")[2]) for path in glob.glob("/proc/[0-9]*/comm") if open(path).read() == "qemu-ga\\n"]
for line in sys.stdin:
    what = line.strip()
    if what == "write":
        with open("/srv/written", "w") as file:
            file.write("written")
            os.fsync(file.fileno())
    else:
        for number in agent():
            os.kill(number, getattr(signal, what))
    print("done", flush=True)
"""
"""Sends signals to the agent (SIGSTOP, SIGKILL) without touching a disk, and writes to one when told ``write``."""


def inside(guest: str, *words: str, stdin: bytes = b"", check: bool = True, timeout: float = 120) -> str:
    """Run a command in a guest as root."""
    return vmhost("guest", "exec", guest, "--sudo", "--", *words, stdin=stdin, check=check, timeout=timeout).text


def put(guest: str, path: str, text: str, mode: str = "644") -> None:
    """Write a file in a guest."""
    inside(guest, "sh", "-c", f"cat >{path} && chmod {mode} {path} && sync", stdin=text.encode())


@contextmanager
def python_in(guest: str, name: str, text: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program in a guest as root, on pipes; it ends with the block."""
    put(guest, f"/run/{name}", text)
    argv = [VMHOST, "guest", "ssh", guest, "sudo", "python3", f"/run/{name}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()
            inside(guest, "pkill", "-KILL", "-f", f"/run/{name}", check=False)


@dataclass
class Hands:
    """Somebody who is in the guest already, whatever becomes of its disks and its agent."""

    process: subprocess.Popen[str]

    def begin(self, what: str) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")

    def done(self) -> None:
        """Wait until it is done."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "done\n"

    def do(self, what: str) -> None:
        """Do it."""
        self.begin(what)
        self.done()


@contextmanager
def hands_in(guest: str) -> Iterator[Hands]:
    """Have somebody in a guest."""
    with python_in(guest, "hands.py", HANDS) as process:
        hands = Hands(process)
        hands.do("SIGCONT")
        yield hands


@dataclass
class Writer:
    """A writer in a guest; ``acknowledged`` is the last record that it called durable, as far as it was heard."""

    acknowledged: int = 0

    def goes_on(self) -> bool:
        """Whether more is acknowledged from now on."""
        now = self.acknowledged
        return eventually(lambda: self.acknowledged > now + 5, seconds=60)


@contextmanager
def writing(guest: str) -> Iterator[Writer]:
    """Let a guest write while the block runs."""
    writer = Writer()
    with python_in(guest, "writer.py", WRITER) as process:

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                writer.acknowledged = int(line)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        assert eventually(lambda: writer.acknowledged > 20, seconds=120)
        yield writer
        process.kill()
        thread.join(30)


def records(guest: str) -> int:
    """Check the database in a guest, and return how many records it holds."""
    return int(inside(guest, "python3", "-", stdin=CHECK.encode()))


def who_is(guest: str) -> dict[str, str]:
    """Return everything that tells a guest from every other, as the guest itself says it."""
    script = (
        "cat /etc/machine-id; hostname; cat /var/lib/cloud/data/instance-id; "
        "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; "
        "cat /sys/class/net/net*/address; hostname -I; cat /sys/class/dmi/id/product_uuid"
    )
    names = ("machine", "hostname", "instance", "host key", "MAC", "address", "UUID")
    return dict(zip(names, inside(guest, "sh", "-c", script).split(), strict=True))


def is_there(guest: str, seconds: float = 400) -> bool:
    """Wait until a guest lets us in, with the host key that is pinned."""
    words = ("guest", "exec", guest, "--", "true")
    return eventually(lambda: vmhost(*words, check=False, timeout=120).code == 0, seconds=seconds)


def rows(*words: str) -> list[dict[str, object]]:
    """Return what a listing says."""
    return list(json.loads(vmhost(*words, "-o", "json", check=False).stdout)["data"])
