"""The resolver as others call it: values in, values out."""

from __future__ import annotations

import pytest

from vmhost.model.errors import SpecError
from vmhost.model.spec import NetworkSpec, Site, SiteInput
from vmhost.plan.resolve import resolve

GUEST = {"image": "debian-12", "memory": "1G", "disks": [{"size": "4G"}]}


def written(**guest: object) -> SiteInput:
    data = {
        "apiVersion": "vmhost/v1",
        "name": "shop",
        "networks": {"nat": {"type": "user"}},
        "guests": {"web": GUEST | guest},
    }
    return SiteInput.model_validate(data)


def test_a_resolved_site_knows_its_guests() -> None:
    site = resolve(written(nics=[{"network": "nat"}]), "site.yaml")
    assert isinstance(site, Site)
    assert site.path == "site.yaml"
    web = site.guest("web")
    assert web is not None
    assert web.root.id == "root"
    assert site.guest("db") is None
    assert site.networks["nat"] == NetworkSpec(type="user")


def test_faults_are_raised_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        resolve(written(nics=[{"network": "nta"}], profile=None, cloud_init={"user": "root"}), "site.yaml")
    assert [fault.path for fault in caught.value.faults] == ["guests.web.nics[0].network", "guests.web.cloud_init.user"]
    assert str(caught.value).startswith("site.yaml: guests.web.nics[0].network: there is no network 'nta'")


def test_resolving_is_idempotent() -> None:
    first = resolve(written(nics=[{"network": "nat"}], count=2))
    again = SiteInput.model_validate(
        {
            "apiVersion": "vmhost/v1",
            "name": first.name,
            "networks": {name: network.model_dump() for name, network in first.networks.items()},
            "guests": {guest.name: guest.model_dump(exclude={"name"}) for guest in first.guests},
        }
    )
    assert resolve(again) == first


@pytest.mark.parametrize(
    ("count", "names"), [(1, ["web-01"]), (2, ["web-01", "web-02"]), (100, ["web-001", "web-100"])]
)
def test_numbered_guests(count: int, names: list[str]) -> None:
    found = [guest.name for guest in resolve(written(count=count)).guests]
    assert len(found) == count
    assert [found[0], found[-1]][: len(names)] == names


def test_user_data_that_nobody_read_is_a_fault() -> None:
    with pytest.raises(SpecError, match=r"the file 'own\.yaml' was not read"):
        resolve(written(cloud_init={"user_data": "own.yaml"}))


def test_files_have_a_limit_together() -> None:
    files = [{"path": f"/f{number}", "content": "x" * 300_000} for number in range(4)]
    with pytest.raises(SpecError, match="at most 1M"):
        resolve(written(cloud_init={"files": files}))


def test_a_number_may_make_a_name_too_long() -> None:
    data = {"apiVersion": "vmhost/v1", "name": "x", "guests": {"a" * 62: GUEST | {"count": 2}, "b-": GUEST}}
    with pytest.raises(SpecError) as caught:
        resolve(SiteInput.model_validate(data))
    assert [fault.message.partition(":")[0] for fault in caught.value.faults] == [
        f"'{'a' * 60}...' is not a name",
        "'b-' cannot be a host name",
    ]
