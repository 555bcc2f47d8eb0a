"""``ports.Journals``, ``ports.History`` and ``ports.Keys`` in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from vmhost.model.drills import DrillRecord
from vmhost.model.errors import Absent, AlreadyThere, DamagedData
from vmhost.model.outcome import JobRecord, JobState
from vmhost.model.services import KeptLook
from vmhost.ports import KeyPair, OpenJournal
from vmhost.testing.machine import Machine
from vmhost.testing.world import Job, Journal, SiteKey


class FakeJournal:
    """One operation's journal; its records are kept as JSON, as a file keeps them."""

    def __init__(self, machine: Machine, journal: Journal) -> None:
        self._machine = machine
        self._journal = journal

    def append(self, record: Mapping[str, Any], *, durable: bool = True) -> None:
        text = json.dumps(dict(record), sort_keys=True, allow_nan=False)
        with self._machine.at_work(changing=True):
            if self._journal.id not in self._machine.alive:
                raise ValueError(f"journal {self._journal.id} is closed")
            self._journal.records.append(text)
            if durable:
                self._journal.durable = len(self._journal.records)

    def close(self, *, done: bool) -> None:
        with self._machine.at_work(changing=True) as world:
            if self._journal.id in self._machine.alive:
                self._machine.alive.discard(self._journal.id)
                if done:
                    del world.journals[self._journal.id]


class FakeJournals:
    """The journals of a fake host. A journal is open when its owner is not among the living."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def begin(self, id: str) -> FakeJournal:  # noqa: A002 - the port's word
        with self._machine.at_work(changing=True) as world:
            if id in world.journals:
                raise AlreadyThere("cannot begin the journal: it is there already", subject=id)
            journal = world.journals[id] = Journal(id, world.now)
            self._machine.alive.add(id)
            return FakeJournal(self._machine, journal)

    def any_open(self) -> bool:
        with self._machine.at_work() as world:
            return any(name not in self._machine.alive for name in world.journals)

    def claim_open(self) -> tuple[OpenJournal, ...]:
        with self._machine.at_work() as world:
            found = [journal for journal in world.journals.values() if journal.id not in self._machine.alive]
            for journal in found:
                if journal.damaged:
                    raise DamagedData(journal.damaged, subject=journal.id, hint="vmhost --version")
            self._machine.alive.update(journal.id for journal in found)
            return tuple(self._opened(journal) for journal in sorted(found, key=lambda journal: journal.begun))

    def _opened(self, journal: Journal) -> OpenJournal:
        records = tuple(json.loads(text) for text in journal.records)
        return OpenJournal(journal.id, records, FakeJournal(self._machine, journal))


class FakeHistory:
    """The jobs of a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def start(self, record: JobRecord) -> None:
        with self._machine.at_work(changing=True) as world:
            if record.id in world.jobs:
                raise AlreadyThere("a job has that id", subject=record.id, hint=f"vmhost job show {record.id}")
            world.jobs[record.id] = Job(record)

    def update(self, id: str, *, progress: str, done: float, total: float, rate: float) -> None:  # noqa: A002
        self._change(id, progress=progress, done=done, total=total, rate=rate)

    def end(self, id: str, *, state: str, error: str) -> None:  # noqa: A002 - the port's word
        if state not in get_args(JobState):
            raise ValueError(f"{state!r} is not the state of a job")
        self._change(id, state=state, error=error, ended=self._machine.world.now)

    def cancel(self, id: str) -> None:  # noqa: A002 - the port's word
        with self._machine.at_work(changing=True) as world:
            job = world.jobs.get(id)
            if job is None or job.record.state != "running":
                raise Absent("no job of that id is running", subject=id, hint="vmhost job list")
            job.cancelled = True

    def cancelled(self, id: str) -> bool:  # noqa: A002 - the port's word
        with self._machine.at_work() as world:
            return id in world.jobs and world.jobs[id].cancelled

    def log(self, id: str, line: str) -> None:  # noqa: A002 - the port's word
        with self._machine.at_work(changing=True) as world:
            if id in world.jobs:
                world.jobs[id].lines.append(line)

    def step(self, id: str, line: str, *, done: float, total: float) -> None:  # noqa: A002 - the port's word
        self.log(id, line)
        self.update(id, progress=line, done=done, total=total, rate=0)

    def lines(self, id: str) -> tuple[str, ...]:  # noqa: A002 - the port's word
        with self._machine.at_work() as world:
            if id not in world.jobs:
                raise Absent("there is no job of that id", subject=id, hint="vmhost job list")
            return tuple(world.jobs[id].lines)

    def jobs(self, *, limit: int = 100) -> tuple[JobRecord, ...]:
        with self._machine.at_work() as world:
            newest_first = reversed([job.record for job in world.jobs.values()])
            records = sorted(newest_first, key=lambda record: -record.started)
            return tuple(records[: max(0, limit)])

    def drilled(self, record: DrillRecord) -> None:
        with self._machine.at_work(changing=True) as world:
            world.drills.append(record)

    def drills(self) -> tuple[DrillRecord, ...]:
        with self._machine.at_work() as world:
            return tuple(world.drills)

    def looked(self, looks: Sequence[KeptLook]) -> None:
        with self._machine.at_work(changing=True) as world:
            world.looks.extend(looks)

    def looks(self, guest: str = "", service: str = "") -> tuple[KeptLook, ...]:
        with self._machine.at_work() as world:
            found = [look for look in world.looks if not guest or (look.guest, look.service) == (guest, service)]
            return tuple(sorted(found, key=lambda look: (look.guest, look.service, look.probe)))

    def last_looks(self, since: float) -> tuple[KeptLook, ...]:
        with self._machine.at_work() as world:
            last = {(look.guest, look.service, look.probe): look for look in world.looks if look.at >= since}
            return tuple(last.values())

    def interrupt(self) -> None:
        """Mark what runs as interrupted: its process died."""
        with self._machine.at_work(changing=True) as world:
            for job in world.jobs.values():
                if job.record.state == "running":
                    text = "its process ended without a word"
                    job.record = replace(job.record, state="interrupted", ended=world.now, error=text)

    def _change(self, name: str, **values: Any) -> None:
        with self._machine.at_work(changing=True) as world:
            if name in world.jobs:
                world.jobs[name].record = replace(world.jobs[name].record, **values)


class FakeKeys:
    """The sites' SSH keys; the files that hold them are never there."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self._machine = machine
        self._directory = directory

    def public(self, site: str) -> str | None:
        with self._machine.at_work() as world:
            return world.keys[site].public if site in world.keys else None

    def private_file(self, site: str) -> Path:
        return self._directory / f"{site}.key"

    def store(self, site: str, pair: KeyPair) -> None:
        with self._machine.at_work(changing=True) as world:
            if site in world.keys:
                hint = f"ls -l {self.private_file(site)}"
                raise AlreadyThere("this site has its SSH key already", subject=site, hint=hint)
            world.keys[site] = SiteKey(pair.public, pair.private)
