"""First contact with 50 guests and one command in each: vmhost, ansible and parallel-ssh, program against program.

Each guest is a real sshd of its own on loopback, with its own pinned host key. All start a fresh interpreter. vmhost
and ansible check the host keys, parallel-ssh has no means to; ansible is told where its Python is.

Run: ``python -m bench.bench_contact [ROUNDS]``, with ansible on the PATH: an environment of its own with ansible-core
and, to compare with that too, parallel-ssh.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.ssh.private_sshd import PrivateSshd

GUESTS = 50
ROUNDS = 5
PROMISED = 5.0
"""How many times faster than ansible first contact is to be."""

OURS = """
import json, sys
from pathlib import Path
from vmhost.drivers.clock import SystemClock
from vmhost.drivers.ssh.fanout import map_guests
from vmhost.drivers.ssh.shell import SshShell
from vmhost.engine.services.line import Lines
from vmhost.model.guestops import GuestCommand
from vmhost.model.shell import SshTarget

known = json.loads(Path(sys.argv[1]).read_text())
targets = {
    name: SshTarget(
        guest=name,
        host="127.0.0.1",
        port=port,
        user=user,
        host_keys=(key,),
        private_key_files=(Path(identity),),
    )
    for name, (port, user, key, identity) in known.items()
}
with SshShell() as shell:
    with Lines(lambda guest, deadline: shell.connect(targets[guest], deadline=deadline), SystemClock()) as lines:
        command = GuestCommand(("/bin/true",), sudo=False)
        answers = map_guests(lambda name: lines.run(name, command), {name: name for name in targets})
assert all(getattr(answer, "exit_code", None) == 0 for answer in answers.values()), answers
"""

PARALLEL = """
import json, sys
from pathlib import Path
from pssh.clients import ParallelSSHClient
from pssh.config import HostConfig

known = json.loads(Path(sys.argv[1]).read_text()).values()
hosts = [HostConfig(port=port, user=user, private_key=key, allow_agent=False) for port, user, _, key in known]
client = ParallelSSHClient(["127.0.0.1"] * len(hosts), host_config=hosts, pool_size=int(sys.argv[2]))
answers = list(client.run_command("/bin/true"))
client.join(answers)
assert [answer.exit_code for answer in answers] == [0] * len(hosts), answers
"""


def ours(directory: Path, known: Path) -> float:
    """Seconds of a fresh process that reaches all guests as vmhost does."""
    del directory
    return _timed([sys.executable, "-c", OURS, str(known)], dict(os.environ))


def ansible(directory: Path, forks: int) -> float:
    """Seconds of ``ansible all -m command``; nothing of an earlier round is left to it."""
    with tempfile.TemporaryDirectory(dir=directory) as home:
        environment = {
            **os.environ,
            "ANSIBLE_HOME": home,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{home}/cp",
            "ANSIBLE_SSH_ARGS": (
                f"-o ControlMaster=auto -o ControlPersist=5s -o UserKnownHostsFile={directory}/known_hosts"
            ),
        }
        argv = ["ansible", "-i", str(directory / "inventory"), "all", "-f", str(forks)]
        return _timed([*argv, "-m", "command", "-a", "/bin/true"], environment)


def parallel(python: str, known: Path, pool: int) -> float:
    """Seconds of a fresh process that reaches all guests by parallel-ssh, as many at a time as ``pool`` says."""
    return _timed([python, "-c", PARALLEL, str(known), str(pool)], dict(os.environ))


def _with_parallel(ansible: str | None) -> str:
    """The interpreter beside ansible if it has parallel-ssh, else nothing."""
    python = str(Path(ansible).parent / "python") if ansible else ""
    has = python and subprocess.run([python, "-c", "import pssh"], capture_output=True, check=False).returncode == 0
    return python if has else ""


def _timed(argv: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=600)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{argv[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
    return seconds


def _guests(directory: Path, stack: ExitStack) -> Path:
    """Start all servers, and write down how they are reached, for both."""
    known, inventory, host_keys = {}, [], []
    for number in range(GUESTS):
        place = directory / f"guest-{number:02}"
        place.mkdir()
        sshd = stack.enter_context(PrivateSshd(place))
        known[place.name] = (sshd.port, sshd.user, sshd.host_key, str(sshd.identity))
        reached = f"ansible_host=127.0.0.1 ansible_port={sshd.port} ansible_user={sshd.user}"
        inventory.append(
            f"{place.name} {reached} ansible_ssh_private_key_file={sshd.identity} "
            "ansible_python_interpreter=/usr/bin/python3\n"
        )
        host_keys.append(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    (directory / "inventory").write_text("".join(inventory))
    (directory / "known_hosts").write_text("".join(host_keys))
    (directory / "known.json").write_text(json.dumps(known))
    return directory / "known.json"


def main() -> int:
    """Print the table; 1 when it is slower than promised, 0 when there is no ansible to compare with."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    peer = shutil.which("ansible")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        known = _guests(directory, stack)
        mine, eight, fifty, pool = [], [], [], []
        python = _with_parallel(peer)
        for _ in range(rounds):
            mine.append(ours(directory, known))
            if peer:
                eight.append(ansible(directory, 8))
                fifty.append(ansible(directory, GUESTS))
            if python:
                pool.append(parallel(python, known, 8))
    print(f"| first contact with {GUESTS} guests and a command | median s | times vmhost | promised |")
    print("|---|---:|---:|---:|")
    print(f"| vmhost, 8 at a time | {statistics.median(mine):.2f} | 1.00 | - |")
    if not peer:
        print("\nansible is not on the PATH: nothing to compare with")
        return 0
    ratios = []
    for words, theirs in (("ansible -m command, -f 8", eight), (f"ansible -m command, -f {GUESTS}", fifty)):
        ratio = statistics.median(other / one for one, other in zip(mine, theirs, strict=True))
        ratios.append(ratio)
        print(f"| {words} | {statistics.median(theirs):.2f} | {ratio:.2f} | {PROMISED:g} |")
    if pool:
        ratio = statistics.median(other / one for one, other in zip(mine, pool, strict=True))
        print(f"| parallel-ssh, 8 at a time, no host key checked | {statistics.median(pool):.2f} | {ratio:.2f} | - |")
    return 1 if min(ratios) < PROMISED else 0


if __name__ == "__main__":
    sys.exit(main())
