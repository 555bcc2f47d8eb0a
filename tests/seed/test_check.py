"""Seeds are checked by cloud-init's own schemas before anything is created."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.seed import building
from vmhost.model.errors import SpecError
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.steps import CreateSeed
from vmhost.ops.cloudinit import check_seeds

SITE = building.site()


def plan(**changes: str) -> Plan:
    seed = building.documents(SITE.guests[0], SITE.networks)
    step = CreateSeed("vmhost", "x-seed.iso", seed.meta_data, seed.user_data, seed.network_config)
    return Plan("shop", (Planned(replace(step, **changes), None, Change.LIVE, "web.01", "seed"),))


def test_what_the_packaged_templates_make_passes() -> None:
    check_seeds(plan())


def test_what_another_template_makes_wrong_is_told() -> None:
    with pytest.raises(SpecError) as caught:
        check_seeds(
            plan(user_data='{"runmcd": []}', network_config='{"version": 2, "ethernets": {"a": {"dhcp4": "maybe"}}}')
        )
    assert caught.value.subject == "web.01"
    assert caught.value.faults[0].path == "user-data"
    assert "did you mean 'runcmd'" in caught.value.faults[0].message
    assert caught.value.faults[1].path.startswith("network-config")
