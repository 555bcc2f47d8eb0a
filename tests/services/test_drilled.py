"""A drill looks at the services that the guest had when its point was taken, by the way into the drill alone."""

from __future__ import annotations

import pytest

from tests.services.shop import NGINX, Shop
from vmhost.model.errors import DrillFailed
from vmhost.ops.drills import raise_failures
from vmhost.testing.world import System

PROBED = NGINX + "    probes: {port: {tcp: 80, interval: 1s, start_period: 5s}}\n"


@pytest.fixture
def shop() -> Shop:
    """A shop whose service is deployed, and in a point."""
    made = Shop()
    made.deploy(PROBED)
    (result,) = made.host.backups.run(["web-01"])
    assert result.error is None
    return made


def in_point(shop: Shop) -> System:
    """What the point holds of the guest's system."""
    (repository,) = shop.fake.world.repositories.values()
    (point,) = repository.points.values()
    return next(iter(point.systems.values()))


def test_the_probes_are_good_in_the_drill_whatever_the_guest_itself_is(shop: Shop) -> None:
    assert "for the probes of nginx" in str(shop.host.backups.drills.plan("web-01"))
    with shop.inside("web-01") as system:
        system.land.units["nginx.service"].active = False
    (result,) = shop.host.backups.drills.run(["web-01"])
    raise_failures([result])


def test_a_service_that_no_longer_starts_is_found(shop: Shop) -> None:
    in_point(shop).land.units["nginx.service"].active = False
    assert all(look.good for row in shop.services.check(["nginx"]) for look in row.looks)
    (result,) = shop.host.backups.drills.run(["web-01"])
    with pytest.raises(DrillFailed, match=r"nginx is not ready after .*: port: connection refused"):
        raise_failures([result])
    assert result.drill is not None
    assert result.drill.rto == -1
