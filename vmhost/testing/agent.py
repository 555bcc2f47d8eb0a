"""The QEMU guest agent of fake guests (https://www.qemu.org/docs/master/interop/qemu-ga-ref.html)."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Callable
from typing import Any

from vmhost.model.errors import Absent, DriverError, Silent
from vmhost.ports import GREETING
from vmhost.render.parse.cloudinit import VERDICT_ARGV
from vmhost.testing import commands, freezing, guests
from vmhost.testing.commands import Inside, Program, Ran
from vmhost.testing.machine import Machine
from vmhost.testing.world import Domain, World

Answer = Callable[["Asked"], Any]


class Asked:
    """One question to an agent: the guest, its domain and the arguments."""

    def __init__(self, world: World, domain: Domain, arguments: dict[str, Any]) -> None:
        self.world = world
        self.domain = domain
        self.arguments = arguments


class FakeAgents:
    """The agents of all guests of a fake host.

    :param programs: what ``guest-exec`` can run.
    """

    def __init__(self, machine: Machine, programs: dict[str, Program]) -> None:
        self._machine = machine
        self._programs = programs
        self._begun: list[Ran | tuple[str, ...]] = []
        self.answers: dict[str, Answer] = {
            "guest-ping": lambda _: {},
            "guest-get-host-name": lambda asked: {"host-name": _inside(asked).system.hostname},
            "guest-network-get-interfaces": _interfaces,
            "guest-fsfreeze-freeze": lambda asked: freezing.freeze(asked.world, asked.domain),
            "guest-fsfreeze-thaw": lambda asked: freezing.thaw(asked.world, asked.domain),
            "guest-fsfreeze-status": lambda asked: "frozen" if asked.domain.frozen else "thawed",
            "guest-exec": self._exec,
            "guest-exec-status": self._exec_status,
        }

    def ask(self, uuid: str, command: str, timeout: float) -> str:
        """Return an agent's answer.

        :raises Silent: it is not connected. :raises Absent: the domain does not run.
        """
        question = json.loads(command)
        name = question.get("execute", "")
        with self._machine.at_work(changing=True) as world:
            domain = world.domains.get(uuid)
            if domain is None or not domain.state.active:
                raise Absent("it does not run", subject=domain.name if domain else uuid, hint="vmhost guest list")
            if domain.up and world.behaviour(domain.name).hangs:
                self._machine.advance(GREETING)
                raise Silent("Guest agent is not responding", subject=domain.name, retryable=True)
            how = freezing.answering(world, domain, name)
            if how == "silent":
                self._machine.advance(timeout)
                if name == "guest-fsfreeze-freeze":
                    freezing.freeze(world, domain)
                raise Silent("Guest agent is not responding", subject=domain.name, retryable=True)
            if how == "nonsense":
                return "(nonsense)"
            if how == "gone" or not (domain.up and world.behaviour(domain.name).agent):
                text = "Guest agent is not responding: QEMU guest agent is not connected"
                raise Silent(text, subject=domain.name, retryable=True)
            if name not in self.answers:
                text = f"unable to execute QEMU agent command '{name}': The command {name} has not been found"
                raise DriverError(f"internal error: {text}", subject=domain.name)
            asked = Asked(world, domain, question.get("arguments", {}))
            answer = json.dumps({"return": self.answers[name](asked)})
            if name == "guest-fsfreeze-freeze" and freezing.answering(world, domain, name) == "silent":
                self._machine.advance(timeout)
                raise Silent("Guest agent is not responding", subject=domain.name, retryable=True)
            return answer

    def _exec(self, asked: Asked) -> dict[str, int]:
        arguments = asked.arguments
        argv = (arguments["path"], *arguments.get("arg", ()))
        data = base64.b64decode(arguments.get("input-data", ""))
        self._begun.append(argv if argv == VERDICT_ARGV else self._run(asked, argv, data))
        return {"pid": len(self._begun)}

    def _exec_status(self, asked: Asked) -> dict[str, Any]:
        """The question for cloud-init's verdict ends when cloud-init has ended, everything else at once."""
        number = int(asked.arguments["pid"]) - 1
        begun = self._begun[number]
        if isinstance(begun, tuple):
            if asked.domain.done_at:
                return {"exited": False}
            begun = self._begun[number] = self._run(asked, begun, b"")
        answer: dict[str, Any] = {"exited": True, "exitcode": begun.exit_code}
        for name, data in (("out-data", begun.stdout), ("err-data", begun.stderr)):
            if data:
                answer[name] = base64.b64encode(data).decode("ascii")
        return answer

    def _run(self, asked: Asked, argv: tuple[str, ...], data: bytes) -> Ran:
        return commands.run(self._programs, _inside(asked), list(argv), data)


def _inside(asked: Asked) -> Inside:
    system = guests.system_of(asked.world, asked.domain)
    assert system is not None
    return Inside(asked.domain.name, system, "root")


def _interfaces(asked: Asked) -> list[dict[str, Any]]:
    return [
        {
            "name": f"net{number}",
            "hardware-address": mac,
            "ip-addresses": [_address(address)],
        }
        for number, (mac, address, _) in enumerate(asked.domain.reached)
    ]


def _address(text: str) -> dict[str, Any]:
    address = ipaddress.ip_address(text)
    return {
        "ip-address": text,
        "ip-address-type": f"ipv{address.version}",
        "prefix": 24 if address.version == 4 else 64,
    }
