"""The host behind ``-c fake:demo``, and the builders that it is made with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmhost.engine.observe import observe
from vmhost.model.errors import DamagedData, UsageError
from vmhost.model.identity import METADATA_VERSION
from vmhost.model.observed import DomainState, Observed
from vmhost.model.spec import GuestSpec
from vmhost.render.metadata import metadata_element
from vmhost.render.parse.metadata import parse_metadata
from vmhost.testing import FakeHost, builders
from vmhost.testing.demo import demo_host, demo_ports
from vmhost.testing.xml import write


@pytest.fixture(scope="module")
def demo() -> FakeHost:
    return demo_host(speed=0)


@pytest.fixture(scope="module")
def seen(demo: FakeHost) -> Observed:
    return observe(demo.ports)


class TestDemo:
    def test_a_dozen_of_ours_and_three_foreign(self, seen: Observed) -> None:
        ours = [domain for domain in seen.domains if domain.metadata]
        assert len(ours) == 12
        assert {domain.metadata.site for domain in ours if domain.metadata} == {"shop", "lab"}
        assert {domain.name for domain in seen.domains if not domain.metadata} == {"jenkins", "legacy-nas", "router"}
        assert {pool.name for pool in seen.pools} == {"vmhost", "archive"}
        assert len(seen.images) == 3
        assert {link.name for link in seen.links} >= {"eno1", "br0", "br1", "docker0"}

    def test_every_state_occurs(self, seen: Observed) -> None:
        states = {domain.raw.state for domain in seen.domains}
        assert states >= {DomainState.RUNNING, DomainState.SHUTOFF, DomainState.PAUSED, DomainState.CRASHED}
        assert any(domain.raw.managed_save for domain in seen.domains)
        assert any(domain.metadata.protect for domain in seen.domains if domain.metadata)
        assert any(domain.facts.firmware == "uefi" for domain in seen.domains)

    def test_its_metadata_is_what_vmhost_writes(self, seen: Observed) -> None:
        for domain in seen.domains:
            if domain.metadata is None:
                continue
            assert domain.metadata.version == METADATA_VERSION
            assert domain.metadata.identity.uuid == domain.uuid
            spec = GuestSpec.model_validate_json(domain.metadata.spec)
            assert (spec.name, spec.memory.size) == (domain.name, domain.facts.memory)
            volumes = {f"{volume.pool}/{volume.name}" for pool in seen.pools for volume in pool.volumes}
            assert set(domain.metadata.volumes) <= volumes

    def test_nothing_overlaps(self, seen: Observed) -> None:
        nics = [nic for domain in seen.domains for nic in domain.facts.nics]
        assert len({nic.mac for nic in nics}) == len(nics)
        addresses = [n.address for d in seen.domains if d.metadata for n in d.metadata.identity.nics]
        assert len(set(addresses)) == len(addresses)

    def test_its_running_guests_answer(self, demo: FakeHost, seen: Observed) -> None:
        up = {neighbour.address for neighbour in seen.neighbours}
        running = [d for d in seen.domains if d.metadata and d.raw.state is DomainState.RUNNING]
        assert {d.metadata.identity.nics[0].address.partition("/")[0] for d in running if d.metadata} <= up

    def test_it_is_the_same_every_time(self, demo: FakeHost) -> None:
        assert demo_host(speed=0).state() == demo.state()

    def test_there_is_a_past(self, demo: FakeHost) -> None:
        assert [job.state for job in demo.history.jobs()] == ["failed", "done", "done"]


class TestPorts:
    def test_another_name(self) -> None:
        with pytest.raises(UsageError, match="no such fake host"):
            demo_ports("fake:nosuch")

    def test_each_is_a_host_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VMHOST_FAKE_STATE", raising=False)
        first, second = demo_ports("fake:demo"), demo_ports("fake:demo")
        first.hypervisor.create_pool("mine", "/mine")
        assert "mine" not in {pool.name for pool in second.hypervisor.pools()}

    def test_a_file_carries_it_from_process_to_process(self, tmp_path: Path) -> None:
        code = (
            "import sys; from vmhost.testing.demo import demo_ports; h = demo_ports('fake:demo').hypervisor\n"
            "found = [p.name for p in h.pools()]\n"
            "h.create_pool(sys.argv[1], '/' + sys.argv[1]); print(*found)"
        )
        environment = {**os.environ, "VMHOST_FAKE_STATE": str(tmp_path / "state.json")}

        def run(name: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, "-c", code, name], env=environment, capture_output=True, text=True, check=True
            )
            return done.stdout.split()

        assert run("one") == ["archive", "vmhost"]
        assert run("two") == ["archive", "one", "vmhost"]

    def test_a_damaged_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "x").write_text("?")
        monkeypatch.setenv("VMHOST_FAKE_STATE", str(tmp_path / "x"))
        with pytest.raises(DamagedData) as caught:
            demo_ports("fake:demo")
        assert caught.value.hint == f"rm {tmp_path / 'x'}"


class TestBuilders:
    def test_metadata_is_written_as_vmhost_writes_it(self) -> None:
        spec = builders.guest(protect=True, autostart=True)
        about = builders.metadata(spec, builders.identity(spec), command="guest resize")
        assert parse_metadata(write(builders.metadata_element(about))) == about
        assert write(builders.metadata_element(about)) == write(metadata_element(about))

    def test_a_site(self) -> None:
        site = builders.site(builders.guest("a"), builders.guest("b", network=None, memory="1G"))
        assert [guest.name for guest in site.guests] == ["a", "b"]
        assert site.networks["lan"].gateway == "10.20.0.1"
        assert site.guest("b").memory.size == 1 << 30  # type: ignore[union-attr]

    def test_observed_is_what_is_observed(self) -> None:
        spec = builders.guest("web-01")
        host = builders.observed(spec, builders.guest("web-02"), running=False)
        domain = host.domain("web-01")
        assert domain is not None
        assert domain.metadata is not None
        assert json.loads(domain.metadata.spec)["name"] == "web-01"
        assert domain.facts.disks[0].source in {volume.path for volume in host.pools[0].volumes}
        nics = [nic for one in host.domains if one.metadata for nic in one.metadata.identity.nics]
        assert [nic.address for nic in nics] == ["10.20.0.10/24", "10.20.0.11/24"]
        assert builders.observed_domain(spec, ours=False).metadata is None
        assert not domain.active
