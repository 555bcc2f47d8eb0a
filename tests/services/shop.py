"""The demonstration's host with a service, for tests: what is deployed, and what happens inside its guests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vmhost.model.spec import Site
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import guests as inside_guests
from vmhost.testing.demo import demo_host
from vmhost.testing.host import FakeHost
from vmhost.testing.world import System

HEAD = """\
apiVersion: vmhost/v1
name: shop
networks:
  lan: {bridge: br0, subnet: 10.20.0.0/24}
defaults: {image: debian-12, memory: 2G, disks: [{size: 20G}], nics: [{network: lan}]}
guests:
  web-01: {labels: {tier: front}}
  web-02: {labels: {tier: front}}
  cache-01:
"""
NGINX = """
services:
  nginx:
    version: "1.22"
    guests: [web-01, web-02]
    packages: [nginx=1.22.1-9]
    unit: nginx
    ports: [80]
    files:
      - {path: /etc/nginx/conf.d/shop.conf, content: "server { listen 80; }\\n", after: reload}
"""


def site(services: str = NGINX) -> Site:
    """The shop with these services."""
    return parse_site(HEAD + services)


class Shop:
    """A fake host, its ``Host``, and a hand inside its guests."""

    def __init__(self) -> None:
        self.fake: FakeHost = demo_host(speed=0.0)
        self.host = Host(ports=self.fake.ports)
        self.services = self.host.services

    def deploy(self, text: str = NGINX, **how: Any) -> Any:
        return self.services.deploy(self.services.plan_deploy(site(text)), **how)

    @contextmanager
    def inside(self, guest: str) -> Iterator[System]:
        """The system of a guest, to look at and to change."""
        with self.fake.machine.at_work(changing=True) as world:
            domain = next(domain for domain in world.domains.values() if domain.name == guest)
            system = inside_guests.system_of(world, domain)
            assert system is not None
            yield system

    def picture(self, guest: str) -> dict[str, Any]:
        """All that a deployment may have changed in a guest."""
        with self.inside(guest) as system:
            land = system.land
            units = {name: (unit.active, unit.enabled) for name, unit in land.units.items()}
            return {
                "files": {path: data for path, data in system.files.items() if "cloud" not in path},
                "access": {path: mode for path, mode in land.access.items() if path in system.files},
                "packages": dict(land.packages),
                "units": units,
                "users": dict(land.users),
                "groups": dict(land.groups),
                "sysctl": dict(land.sysctl),
                "directories": sorted(land.directories),
            }
