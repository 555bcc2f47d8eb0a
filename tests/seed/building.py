"""A site with one guest that uses everything of cloud-init, and its seed."""

from __future__ import annotations

from pathlib import Path

from vmhost.model.identity import GuestIdentity, NicIdentity
from vmhost.model.spec import GuestSpec, NetworkSpec, Site
from vmhost.ops.sites import parse_site
from vmhost.render.seed import SeedDocuments, host_key_secret, render_seed, secret_references
from vmhost.render.templates import Templates

ROOT = Path(__file__).parents[2]
UUID = "3f2a91c4-5d0e-4c7b-9a61-0d6e3c5b7f10"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA web-01"
LOGIN_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB vmhost shop"

SITE = """
apiVersion: vmhost/v1
name: shop
networks:
  prod: {bridge: br0, subnet: 10.20.0.0/24, gateway: 10.20.0.1, dns: [10.20.0.1], search: [prod.example]}
  six: {bridge: br6, subnet: "fd00:1::/64", gateway: "fd00:1::1", mtu: 9000}
  back: {bridge: br1, subnet: 10.30.0.0/24, gateway: 10.30.0.1}
  office: {bridge: br2}
  nat: {type: user}
guests:
  web.01:
    image: debian-12
    memory: 512M
    disks: [{size: 4G}]
    nics:
      - {network: prod, address: 10.20.0.11}
      - {network: six, address: "fd00:1::5"}
      - {network: back, address: 10.30.0.11}
      - {network: office}
      - {network: office, address: none}
    cloud_init:
      ssh_keys: [KEY]
      users:
        - {name: alice, ssh_keys: [KEY], groups: [adm], sudo: true}
        - {name: bob, sudo: true, shell: /bin/sh, password_hash: {env: BOB_HASH}}
        - {name: carol}
      packages: [nginx, htop]
      package_update: true
      files:
        - {path: /etc/motd, content: "no: 12:30\\n<&>' \\u2028 \\U0001F600\\n"}
        - {path: /home/alice/note, content: hello, owner: "alice:alice", mode: "0600"}
        - {path: /etc/token, secret: {file: /srv/token}, mode: "0400"}
      commands:
        - echo "$(hostname)" > /run/name
        - [install, -d, "/srv/a b"]
      timezone: Europe/Berlin
  plain: {image: debian-12, memory: 512M, disks: [{size: 4G}], nics: [{network: nat}, {network: prod, address: auto}]}
""".replace("KEY", LOGIN_KEY)


def templates() -> Templates:
    """Return the seed templates of this tree."""
    return Templates({path.name: path.read_text() for path in (ROOT / "cloud-init").glob("*.j2")}, sandboxed=False)


def site() -> Site:
    """Return the site above."""
    return parse_site(SITE)


def identity(spec: GuestSpec, networks: dict[str, NetworkSpec]) -> GuestIdentity:
    """Return an identity with a MAC for every NIC; ``auto`` becomes address .99."""
    nics = []
    for number, nic in enumerate(spec.nics):
        subnet = networks[nic.network].subnet
        address = {"dhcp": "", "none": "", "auto": "10.20.0.99"}.get(nic.address, nic.address)
        prefix = f"/{subnet.rpartition('/')[2]}" if subnet and address else ""
        nics.append(NicIdentity(nic.id or "", nic.network, f"52:54:00:00:00:{number:02x}", address=address + prefix))
    return GuestIdentity(UUID, spec.name, UUID, HOST_KEY, tuple(nics))


def documents(spec: GuestSpec, networks: dict[str, NetworkSpec]) -> SeedDocuments:
    """Return the documents of a guest's seed."""
    return render_seed(spec, identity(spec, networks), networks, login_key=LOGIN_KEY, templates=templates())


def secrets(spec: GuestSpec) -> dict[str, str]:
    """Return a value for every secret of a guest."""
    values = {reference.key(): f"secret of {reference.key()}" for _, reference in secret_references(spec)}
    return values | {
        host_key_secret(UUID): "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"
    }
