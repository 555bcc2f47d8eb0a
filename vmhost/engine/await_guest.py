"""Waiting for a guest: woken by its console, its agent and libvirt's events, until SSH answers and cloud-init has
spoken.
"""

from __future__ import annotations

from pathlib import Path

from vmhost.engine.agent import begin_command, output_of
from vmhost.engine.context import Context
from vmhost.engine.reach import Target, address_of
from vmhost.model.errors import Absent, DriverError, GuestError, HostKeyMismatch
from vmhost.model.events import Waiting
from vmhost.model.shell import SshTarget, Verdict, VerdictState
from vmhost.model.steps import AwaitGuest
from vmhost.ports import ShellSession, Wakeups
from vmhost.render.parse.cloudinit import VERDICT_ARGV, VERDICT_END, parse_verdict_output

LOOK_AGAIN = 1.0
LOOK_SOON = 0.05
LOG_IN = 30.0
STRANGER = 30.0
OPEN = "ssh"
CONSOLE_LINES = 12
WORDS_LINES = 500


class _Wait:
    """One guest's waiting, with what was last seen of it."""

    def __init__(self, step: AwaitGuest, context: Context, deadline: float | None = None) -> None:
        self.step = step
        self.context = context
        self.clock = context.ports.clock
        self.deadline = self.clock.monotonic() + step.timeout if deadline is None else deadline
        self.seen = "nothing yet"
        self.console = ""
        self.stranger_since = 0.0

    def remaining(self) -> float:
        """Seconds until the time-out."""
        return self.deadline - self.clock.monotonic()

    def see(self, text: str) -> None:
        """Remember and tell the last thing seen."""
        if text != self.seen:
            self.seen = text
            self.context.on_event(Waiting(self.step.identity.name, text))

    def failure(self, message: str) -> GuestError:
        """Return the error with the console's last lines."""
        name = self.step.identity.name
        tail = self.context.ports.signals.console_tail(self.step.serial_log, CONSOLE_LINES)
        return GuestError(message, subject=name, hint=f"vmhost guest console {name}", details=tail)

    def late(self) -> GuestError:
        """Return the error of a time-out."""
        return self.failure(f"not ready after {self.step.timeout:.0f} s; last seen: {self.last()}")

    def last(self) -> str:
        """What was seen last, on the network and on the console."""
        return f"{self.seen}; {self.console}" if self.console else self.seen


def await_guest(step: AwaitGuest, context: Context, deadline: float | None = None) -> str:
    """Wait until the guest is ready and return cloud-init's verdict (empty when it is not asked for).

    :param deadline: of the monotonic clock, where its time runs already.

    :raises GuestError: not ready in time, it ended, its host key is another's, or cloud-init reports an error; with the
        console's last lines.
    """
    if step.by == "none":
        return ""
    wait = _Wait(step, context, deadline)
    uuid = step.identity.uuid
    wakeups = context.ports.signals.open(context.ports.hypervisor, uuid, step.serial_log)
    try:
        if step.by == "agent":
            _await_agent(wait, wakeups)
            return _ask_verdict(wait, wakeups) if step.cloud_init else ""
        session = _await_ssh(wait, wakeups)
    finally:
        wakeups.close()
    try:
        return _await_verdict(wait, session) if step.cloud_init else ""
    finally:
        session.close()


def await_words(step: AwaitGuest, words: str, context: Context, deadline: float) -> None:
    """Return when a line of the guest's console holds these words, said at any time since it was started.

    :raises GuestError: not in time, or it ended before; with the console's last lines.
    """
    wait = _Wait(step, context, deadline)
    wakeups = context.ports.signals.open(context.ports.hypervisor, step.identity.uuid, step.serial_log)
    try:
        while (remaining := wait.remaining()) > 0:
            context.check()
            said = context.ports.signals.console_tail(step.serial_log, WORDS_LINES)
            if any(words in line for line in said):
                return
            wait.see(f"it does not say {words!r} yet")
            _look(wait, wakeups.wait(min(LOOK_AGAIN, remaining)))
    finally:
        wakeups.close()
    raise wait.late()


def _await_ssh(wait: _Wait, wakeups: Wakeups) -> ShellSession:
    """Knock until the SSH server opens, then log in; a log-in that fails is tried again a little later."""
    while wait.remaining() > 0:
        reach = address_of(wait.step.identity, wait.context.ports)
        if reach is None:
            wait.see("no address yet")
            _look(wait, wakeups.wait(min(LOOK_AGAIN, wait.remaining())))
            continue
        target = ssh_target(wait.step, reach, wait.context)
        wait.see(f"no SSH at {reach.host} port {reach.port} yet")
        with wait.context.ports.shell.knock(target, wakeups.notify):
            _await_opening(wait, wakeups)
        session = _try_ssh(wait, target)
        if session is not None:
            wait.see("SSH answers")
            return session
        _look(wait, wakeups.wait(max(0.0, min(LOOK_AGAIN, wait.remaining()))))
    raise wait.late()


def _await_opening(wait: _Wait, wakeups: Wakeups) -> None:
    """Return when the SSH server has opened. :raises GuestError: the guest has ended, or the time has."""
    while (remaining := wait.remaining()) > 0:
        wait.context.check()
        signs = wakeups.wait(min(LOOK_AGAIN, remaining))
        _look(wait, signs)
        if OPEN in signs:
            return
    raise wait.late()


def _try_ssh(wait: _Wait, target: SshTarget) -> ShellSession | None:
    """Return a session, or None when the log-in failed in a way that may pass, as long as the guest still boots."""
    try:
        deadline = min(wait.deadline, wait.clock.monotonic() + LOG_IN)
        return wait.context.ports.shell.connect(target, deadline=deadline, check=wait.context.check)
    except HostKeyMismatch as error:
        wait.see(str(error))
        wait.stranger_since = wait.stranger_since or wait.clock.monotonic()
        if wait.clock.monotonic() - wait.stranger_since > STRANGER:
            raise wait.failure(f"{target.host} answers with another host key: {error}") from error
    except DriverError as error:
        wait.see(f"SSH: {error.message}")
    return None


def ssh_target(step: AwaitGuest, reach: Target, context: Context) -> SshTarget:
    """Return how to reach the guest of a step over SSH."""
    keys = tuple(Path(path) for path in (context.private_keys.get(step.site),) if path)
    return SshTarget(
        guest=step.identity.name,
        host=reach.host,
        port=reach.port,
        via=reach.via,
        user=step.user,
        host_keys=(step.identity.host_key,),
        private_key_files=keys,
    )


def _look(wait: _Wait, signs: tuple[str, ...]) -> None:
    """Take note of signs of life; without any, see whether it runs at all. :raises GuestError: the guest has ended."""
    for sign in signs or _end_unheard(wait):
        if sign in ("stopped", "crashed"):
            raise wait.failure(f"the guest {sign} before it was ready; last seen: {wait.last()}")
    said = [sign for sign in signs if sign.startswith("console: ")]
    if said:
        wait.console = said[-1]


def _end_unheard(wait: _Wait) -> tuple[str, ...]:
    """Return the sign of an end that nobody told: it came before we listened, or while libvirtd was away."""
    try:
        runs = wait.context.ports.hypervisor.domain(wait.step.identity.uuid).state.active
    except Absent:
        runs = False
    except DriverError:  # which says nothing about the guest
        return ()
    return () if runs else ("stopped",)


def _await_verdict(wait: _Wait, session: ShellSession) -> str:
    """Wait for cloud-init's own verdict over the open session. :raises GuestError: it reports an error, or nothing in
    time.
    """
    remaining = wait.remaining()
    if remaining <= 0:
        raise wait.late()
    wait.see("cloud-init is at work")
    try:
        result = session.run(VERDICT_ARGV, timeout=remaining, until=VERDICT_END, check=wait.context.check)
    except DriverError as error:
        raise wait.failure(f"cloud-init gave no verdict: {error}") from error
    return _judge(wait, parse_verdict_output(result.stdout))


def _judge(wait: _Wait, verdict: Verdict) -> str:
    name = wait.step.identity.name
    if verdict.state is VerdictState.ERROR:
        words = "; ".join(verdict.errors) or "no reason given"
        error = wait.failure(f"cloud-init reports an error: {words}")
        raise GuestError(
            error.message,
            subject=name,
            hint=f"vmhost guest exec {name} -- sudo cat /var/log/cloud-init-output.log",
            details=(*verdict.errors, *error.details),
        )
    wait.see(f"cloud-init: {verdict.state}")
    return str(verdict.state)


def _await_agent(wait: _Wait, wakeups: Wakeups) -> None:
    uuid = wait.step.identity.uuid
    while (remaining := wait.remaining()) > 0:
        wait.context.check()
        try:
            wait.context.ports.hypervisor.agent(uuid, '{"execute": "guest-ping"}', 2.0)
        except DriverError as error:
            wait.see(f"agent: {error.message}")
        else:
            wait.see("the guest agent answers")
            return
        _look(wait, wakeups.wait(min(1.0, remaining)))
    raise wait.late()


def _ask_verdict(wait: _Wait, wakeups: Wakeups) -> str:
    """Wait for cloud-init's own verdict through the guest agent. :raises GuestError: as over SSH.

    The agent does not tell when a command has ended (QEMU guest agent protocol, guest-exec-status), so it is asked:
    soon after each sign of life, then less and less often.
    """
    wait.see("cloud-init is at work")
    pause = LOOK_SOON
    uuid, hypervisor = wait.step.identity.uuid, wait.context.ports.hypervisor
    try:
        pid = begin_command(hypervisor, uuid, VERDICT_ARGV)
        while (remaining := wait.remaining()) > 0:
            wait.context.check()
            output = output_of(hypervisor, uuid, pid)
            if output is not None:
                return _judge(wait, parse_verdict_output(output))
            signs = wakeups.wait(min(pause, remaining))
            pause = LOOK_SOON if signs else min(2 * pause, LOOK_AGAIN)
            _look(wait, signs)
    except DriverError as error:
        raise wait.failure(f"cloud-init gave no verdict through the agent: {error}") from error
    raise wait.late()
