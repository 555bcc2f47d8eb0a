"""nginx from Debian's packages in a real guest with systemd: deployed, looked at, broken, mended, undone."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import vmhost as library
from tests.contract.backends import eventually
from tests.guest.conftest import ROOT, SITE, VMHOST, applied, vmhost
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.engine.services.agentsession import AgentSession
from vmhost.model.errors import DriverError
from vmhost.ports import Hypervisor

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

HOST, GUEST, OTHER = "10.77.0.1", "10.77.0.11", "10.77.0.2"
CANARY = 'canary-5b1f "$0" \\c77e2'
PART = "canary-5b1f"
ENVIRONMENT = "EnvironmentFile=/etc/vmhost/env/nginx.env"
SERVICES = """
services:
  nginx:
    version: "1.22"
    env: test
    guests: [web-01]
    packages: [nginx={version}]
    unit: nginx
    ports: [80]
    directories:
      - {{path: /srv/www, mode: "0750", owner: "root:www-data"}}
    environment:
      TOKEN: {{env: NGINX_TOKEN}}
    files:
      - path: /srv/www/index.html
        content: "{page}\\n"
        after: nothing
      - path: /etc/nginx/sites-enabled/default
        template: true
        content: |
          server {{ listen {{{{ vars.port }}}}; root /srv/www; add_header X-Guest {{{{ guest.name }}}}; {more} }}
        check: [sh, -c, "printf 'events {{}} http {{ include %s; }}' $0 > /run/c && nginx -t -c /run/c", "{{file}}"]
        after: reload
    vars: {{port: 80}}
    probes:
      unit: {{systemd: true, role: liveness, interval: 2s, failures: 1}}
      page: {{http: {{port: 80, status: 200, body: "{page}"}}, interval: 2s}}
      inside: {{http: 80, source: guest, interval: 2s}}
      config: {{command: [nginx, -t, -q], interval: 2s}}
      agent: {{agent: true}}
    restart: {{policy: on-failure, backoff: 2s, tries: 3}}
    hooks:
      pre_freeze: [sh, -c, "printf %s-%s told before >/srv/www/before"]
      post_thaw: [sh, -c, "printf %s-%s told after >/srv/www/after"]
"""

HANGING = """
  hanging:
    guests: [web-01]
    hooks: {pre_freeze: [sleep, "100"], post_thaw: [touch, /run/went-on], timeout: 2s}
"""

SEEKER = """
  seeker:
    guests: [web-01]
    files:
      - path: /run/vmhost-key
        secret: {env: NGINX_TOKEN}
        mode: "0600"
        check:
          - sh
          - -c
          - |
            for process in /proc/[0-9]*; do
                read -r name <$process/comm || continue
                cat $process/cmdline
                [ "$name" = nginx ] || cat $process/environ
            done >/run/seen 2>/dev/null
            grep -qa "vmhost-pu[t]" /run/seen && ! grep -qaFf "$0" /run/seen
          - "{file}"
        after: nothing
"""
"""A secret whose check, which runs while it is on its way, looks for it in all processes; nginx has it by right."""


@dataclass
class Shop:
    """The site with its service: ``write`` writes it anew."""

    path: Path
    guests: str
    version: str
    newer: str

    def write(self, *, page: str = "it works", more: str = "", version: str = "", extra: str = "") -> str:
        text = SERVICES.format(page=page, more=more, version=version or self.version)
        self.path.write_text(self.guests + text + extra)
        return str(self.path)


@pytest.fixture(scope="module")
def shop(lab: InLab, image: str, tmp_path_factory: pytest.TempPathFactory, full_run: bool) -> Iterator[Shop]:
    """The guests, and a mirror of packages on the host's address, the only one that they know.

    The other guest of the example is for full runs.
    """
    del lab, image
    path = tmp_path_factory.mktemp("shop") / "site.yaml"
    guests = SITE.read_text() if full_run else SITE.read_text().partition("\n  db-01:\n")[0] + "\n"
    path.write_text(guests)
    place = run([str(ROOT / "scripts" / "guest-packages")], timeout=60).text.strip()
    found = re.findall(r"^Package: nginx\nVersion: (\S+)", (Path(place) / "Packages").read_text(), re.MULTILINE)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=place)
    with applied(path), http.server.ThreadingHTTPServer((HOST, 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        source = f"deb [trusted=yes] http://{HOST}:{server.server_address[1]} ./\n"
        script = "rm -f /etc/apt/sources.list.d/* && cat > /etc/apt/sources.list"
        inside("sh", "-c", script, stdin=source.encode())
        yield Shop(path, guests, min(found, key=len), max(found, key=len))
        server.shutdown()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGINX_TOKEN", CANARY)


def inside(*words: str, stdin: bytes = b"", check: bool = True, guest: str = "web-01") -> str:
    """Run a command in the guest as root, by another way than the services take."""
    done = vmhost("guest", "exec", guest, "--sudo", "--", *words, stdin=stdin, check=check)
    return done.text


def page(address: str = GUEST) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=20) as answer:
        return f"{answer.headers['X-Guest']}: {answer.read().decode().strip()}"


def rows(*words: str) -> list[dict[str, object]]:
    return list(json.loads(vmhost("service", "list", *words, "-o", "json").stdout)["data"])


def test_a_plan_shows_everything_and_changes_nothing(shop: Shop) -> None:
    told = vmhost("service", "deploy", shop.write(), "--dry-run").text
    assert f"install nginx={shop.version}" in told
    assert "+server { listen 80; root /srv/www; add_header X-Guest web-01;  }" in told
    assert "new file /etc/vmhost/env/nginx.env (secret, not shown)" in told
    assert PART not in told
    assert inside("sh", "-c", "command -v nginx || echo absent").strip() == "absent"
    assert rows() == []


def test_it_is_deployed_and_answers(shop: Shop) -> None:
    done = vmhost("service", "deploy", shop.write(), "--yes", timeout=400)
    assert "nginx in web-01:" in done.stderr.decode()
    assert page() == "web-01: it works"
    (row,) = rows()
    assert (row["service"], row["version"], row["env"], row["guest"]) == ("nginx", "1.22", "test", "web-01")
    assert (row["state"], row["health"], row["drift"]) == ("active (running)", "up", [])
    assert {look["probe"] for look in row["looks"]} == {"unit", "page", "inside", "config", "agent"}  # type: ignore[attr-defined]
    assert "/etc/vmhost/env/nginx.env" in inside("systemctl", "show", "-P", "EnvironmentFiles", "nginx")
    assert inside("systemd-run", "-q", "--wait", "--pipe", "-p", ENVIRONMENT, "printenv", "TOKEN").strip() == CANARY
    assert inside("stat", "-c", "%a %U:%G", "/srv/www").strip() == "750 root:www-data"


def test_a_second_deployment_says_of_everything_why_there_is_nothing_to_do(shop: Shop) -> None:
    told = vmhost("service", "deploy", shop.write(), "--dry-run").text
    assert f"package nginx: {shop.version} is installed" in told
    assert "file /etc/nginx/sites-enabled/default: is as it should be" in told
    assert vmhost("service", "deploy", shop.write(), "--yes").text.strip() == "demo: nothing to do"


def test_what_somebody_changed_is_told_file_by_file_and_put_right(shop: Shop) -> None:
    inside("sh", "-c", "echo changed > /srv/www/index.html; chmod 664 /srv/www/index.html; systemctl disable -q nginx")
    (row,) = rows()
    found = {item["what"] for item in row["drift"]}  # type: ignore[attr-defined]
    assert found == {
        "file /srv/www/index.html: content",
        "file /srv/www/index.html: access",
        "unit nginx.service: start with the guest",
    }
    told = vmhost("service", "deploy", shop.write(), "--yes", timeout=120).text
    assert "-changed\n" in told
    assert "+it works\n" in told
    assert rows()[0]["drift"] == []
    assert page() == "web-01: it works"


def test_a_file_whose_check_fails_does_not_go_live(shop: Shop) -> None:
    before = inside("sha256sum", "/etc/nginx/sites-enabled/default", "/srv/www/index.html")
    site = shop.write(page="second", more="no_such_directive on;")
    failed = vmhost("service", "deploy", site, "--yes", check=False, timeout=120)
    told = failed.stderr.decode()
    assert failed.code == 6
    assert "the check of /etc/nginx/sites-enabled/default failed, the old file stays" in told
    assert 'unknown directive "no_such_directive"' in told
    assert inside("sha256sum", "/etc/nginx/sites-enabled/default", "/srv/www/index.html") == before
    assert page() == "web-01: it works"
    assert inside("find", "/etc/nginx", "/srv/www", "-name", ".vmhost.*") == ""


@pytest.mark.full  # FakeHost shows the same, in no time
def test_a_package_that_is_not_there_leaves_everything_as_it_was(shop: Shop) -> None:
    failed = vmhost("service", "deploy", shop.write(version="99"), "--yes", check=False, timeout=120)
    assert failed.code == 6
    assert "was not found" in failed.stderr.decode()
    assert page() == "web-01: it works"


def test_a_killed_service_is_seen_and_restarted(shop: Shop) -> None:
    del shop
    inside("sh", "-c", "systemctl kill -s KILL nginx; systemctl is-active nginx || true")
    checked = vmhost("service", "check", "nginx", check=False)
    assert checked.code == 7
    assert "nginx.service is" in checked.text
    with pytest.raises(urllib.error.URLError):
        page()
    vmhost("service", "restart", "nginx", timeout=120)
    assert vmhost("service", "check", "nginx", "--count", "3").code == 0
    assert page() == "web-01: it works"
    assert "systemd: Started" in vmhost("service", "logs", "nginx", "--since", "10m").text


def test_stopped_by_wish_is_no_drift(shop: Shop) -> None:
    del shop
    vmhost("service", "stop", "nginx", "--yes", timeout=120)
    assert rows()[0]["state"] == "inactive (dead)"
    assert rows()[0]["drift"] == []
    vmhost("service", "start", "nginx", timeout=120)
    assert page() == "web-01: it works"


def test_killed_it_is_healed_by_the_watch_within_its_policy(shop: Shop) -> None:
    del shop
    with subprocess.Popen([VMHOST, "watch"], stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stderr is not None
        told = [watch.stderr.readline()]
        assert "watching" in told[0]
        try:
            inside("systemctl", "kill", "-s", "KILL", "nginx")
            while "is well again" not in told[-1]:
                told.append(watch.stderr.readline())
                assert told[-1], told
        finally:
            watch.terminate()
        told += watch.stderr.readlines()
    (act,) = [line for line in told if "restarted" in line]
    assert re.search(
        r"web-01: nginx restarted \(try 1 of 3\): .*unit: nginx\.service is failed \(failed, signal\)", act
    )
    assert any(re.search(r"web-01: nginx is well again after \d+\.\d s and 1 try", line) for line in told)
    kept = json.loads(vmhost("service", "check", "nginx", "--history", "-o", "json").stdout)["data"]
    assert {one["probe"] for one in kept} == {"unit", "page", "inside", "config", "agent"}
    (unit,) = (one for one in kept if one["probe"] == "unit")
    assert unit["bad"] >= 1
    assert "nginx.service is failed" in unit["text"]
    assert 0 < unit["median"] <= unit["tail"] <= unit["most"]
    assert page() == "web-01: it works"


def test_services_are_told_before_a_snapshot_and_go_on_after_it(shop: Shop) -> None:
    _snapshot("told")
    assert inside("cat", "/srv/www/before", "/srv/www/after") == "told-beforetold-after"
    with library.connect() as host:
        (kept,) = host.snapshots.list("web-01")
        below = next(disk.source for disk in host.guest("web-01").domain.facts.disks if disk.target == "vda")
        (volume,) = (v for v in host.guest("web-01").volumes if v.path == below)
    assert kept.level == "application"
    assert _holds(volume.backing, b"told-before")
    assert not _holds(volume.backing, b"told-after"), "it was written after the instant"

    vmhost("service", "deploy", shop.write(extra=HANGING), "--only", "hanging", "--yes", timeout=120)
    told = _snapshot("hanging")
    assert "pre_freeze of hanging had not ended after 2 s" in told
    assert "snapshot of level filesystem" in told
    assert inside("sh", "-c", "test -e /run/went-on && ! pgrep -x sleep && echo went on").strip() == "went on"
    vmhost("service", "delete", "hanging", "--yes", timeout=120)
    for name in ("hanging", "told"):
        vmhost("snapshot", "delete", "web-01", name, "--yes", timeout=120)
    inside("rm", "/srv/www/before", "/srv/www/after")


def _snapshot(name: str) -> str:
    """Take a snapshot once the guest, which has seconds to freeze, hears its agent at once; return what was said."""
    with library.connect() as host:
        hypervisor, uuid = host.ports.hypervisor, host.guest("web-01").row.uuid
        assert eventually(lambda: _answers_at_once(hypervisor, uuid), seconds=120)
    return vmhost("snapshot", "create", "web-01", "--name", name, "--yes", timeout=120).stderr.decode()


def _answers_at_once(hypervisor: Hypervisor, uuid: str) -> bool:
    began = time.monotonic()
    with contextlib.suppress(DriverError):
        hypervisor.agent(uuid, '{"execute": "guest-ping"}', 1)
        return time.monotonic() - began < 0.5
    return False


def _holds(path: str, text: bytes) -> bool:
    return run(["grep", "-qaF", text.decode(), path], timeout=120, check=False).code == 0


BEATING = "    heartbeat: {interval: 2s, timeout: 2s, misses: 3, restart: true, shutdown: 5s}\n"


@pytest.mark.full  # a boot
def test_a_guest_whose_kernel_panicked_is_noticed_and_restarted(shop: Shop) -> None:
    text = Path(shop.write()).read_text()
    shop.path.write_text(text.replace("  web-01:\n", f"  web-01:\n{BEATING}"))
    done = vmhost("apply", str(shop.path), "--yes", timeout=120)
    assert "note heartbeat" in done.stderr.decode()
    with subprocess.Popen([VMHOST, "watch"], stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stderr is not None
        patience = threading.Timer(240, watch.terminate)  # it says nothing when nothing is lost
        patience.start()
        told = [watch.stderr.readline()]
        try:
            while "answers" not in told[-1]:
                if "watching" in told[-1]:
                    # nobody hears the end of this command, and libvirt not of the panic: it would restart the guest
                    panic = "echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger"
                    panic = f"sleep 10; modprobe -r pvpanic_mmio pvpanic; {panic}"
                    inside("systemd-run", "-q", "--no-block", "sh", "-c", panic)
                told.append(watch.stderr.readline())
                assert told[-1], told
        finally:
            patience.cancel()
            watch.terminate()
        told += watch.stderr.readlines()
    text = "".join(told)
    assert re.search(r"web-01: does not answer: 3 misses: agent: .*; ssh: ", text)
    assert "web-01: restarted by powering it off (try 1 of 3)" in text
    assert re.search(r"web-01: answers again after \d+\.\d s and 1 try", text)
    vmhost("apply", shop.write(), "--yes", timeout=120)


def test_a_failing_canary_is_taken_back(shop: Shop) -> None:
    site = shop.write(page="fourth", more="return 503;")
    failed = vmhost("service", "roll", "nginx", site, "--rollback-on-failure", "--yes", check=False, timeout=240)
    told = failed.stderr.decode()
    assert failed.code == 6, told
    assert "page: status 503, not 200" in told
    assert "the roll was taken back" in told
    assert page() == "web-01: it works"
    assert (rows()[0]["version"], rows()[0]["drift"], rows()[0]["roll"]) == ("1.22", [], "")


@pytest.mark.full  # four rounds of apt
def test_rolled_to_a_newer_package_and_back(shop: Shop) -> None:
    installed = ("dpkg-query", "-W", "-f=${Version}", "nginx")
    done = vmhost("service", "roll", "nginx", "--to", shop.newer, "--yes", timeout=240)
    assert f"packages: [nginx={shop.newer}]" in done.text
    assert inside(*installed) == shop.newer
    assert page() == "web-01: it works"
    vmhost("service", "roll", "nginx", "--back", "--yes", timeout=240)
    assert inside(*installed) == shop.version
    assert (page(), rows()[0]["drift"]) == ("web-01: it works", [])


def test_the_agent_is_another_way_in(shop: Shop) -> None:
    del shop
    with library.connect() as host:
        uuid = host.guest("web-01").row.uuid
        session = AgentSession(host.ports.hypervisor, uuid, "web-01", host.ports)
        assert session.run(("cat",), input=b"a\0b\xff", timeout=30.0).stdout == b"a\0b\xff"
        assert session.run(("id", "-u"), timeout=30.0).stdout == b"0\n"
        assert session.run(("sh", "-c", "exit 42"), timeout=30.0).exit_code == 42
        with pytest.raises(DriverError, match=r"no end within 0\.5 s"):
            session.run(("sleep", "20"), timeout=0.5)


def test_no_process_shows_the_secret_while_it_is_on_its_way(shop: Shop) -> None:
    seen: set[bytes] = set()
    over = threading.Event()

    def seek() -> None:
        while not over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())

    seeker = threading.Thread(target=seek)
    seeker.start()
    try:
        vmhost("service", "deploy", shop.write(extra=SEEKER), "--only", "seeker", "--yes", timeout=120)
    finally:
        over.set()
        seeker.join()
    assert any(b"--only\0seeker" in line for line in seen)
    assert not any(PART.encode() in line for line in seen)
    assert inside("stat", "-c", "%a %U", "/run/vmhost-key").strip() == "600 root"
    vmhost("service", "delete", "seeker", "--yes", timeout=120)
    assert inside("sh", "-c", "test -e /run/vmhost-key && echo there || echo gone").strip() == "gone"
    assert [row["service"] for row in rows()] == ["nginx"]
    inside("rm", "/run/seen")


def test_the_secret_is_where_it_should_be_and_nowhere_else(shop: Shop, lab: InLab) -> None:
    del shop
    assert inside("stat", "-c", "%a", "/etc/vmhost/env/nginx.env").strip() == "600"
    places = ("/etc", "/srv", "/var/log", "/var/lib/vmhost", "/var/lib/cloud", "/run/systemd", "/tmp")
    # What is looked for comes as input: sudo writes down the arguments of this test, too.
    assert inside("grep", "-rlsF", "-f", "-", *places, stdin=PART.encode()).split() == ["/etc/vmhost/env/nginx.env"]
    script = 'read -r part; journalctl --no-pager --output=export | grep -cF -e "$part"'
    assert inside("sh", "-c", script, stdin=b"VMHOST_COMMAND=\n").strip() != "0", "sudo writes down what is run"
    assert inside("sh", "-c", script, stdin=f"{PART}\n".encode(), check=False).strip() == "0"
    assert PART not in lab.virsh("dumpxml", "web-01").text
    assert "nginx" in lab.virsh("dumpxml", "web-01").text
    for path in Path("/var/lib/vmhost").rglob("*"):
        if path.is_file() and path.suffix not in (".qcow2", ".iso"):
            assert PART.encode() not in path.read_bytes(), path


def test_taken_out_nothing_of_it_is_left_but_what_others_may_use(shop: Shop) -> None:
    told = vmhost("service", "delete", "nginx", "--yes", timeout=120).text
    assert "unit nginx.service: stop, the service no longer has it" in told
    assert PART not in told
    assert rows() == []
    script = "systemctl is-active nginx; systemctl is-enabled nginx; dpkg-query -W -f='${Status}\\n' nginx"
    assert inside("sh", "-c", script).split("\n")[:3] == ["inactive", "disabled", "install ok installed"]
    left = inside("find", "/etc/vmhost/env", "/srv/www", "/var/lib/vmhost/services", "-type", "f")
    assert left == ""
    with pytest.raises(urllib.error.URLError):
        page()
    del shop


def _group(shop: Shop, **how: str) -> str:
    """The site with the service in both guests."""
    path = Path(shop.write(**how))
    path.write_text(path.read_text().replace("guests: [web-01]", "guests: [web-01, db-01]"))
    return str(path)


def _pages() -> tuple[str, str]:
    return page(OTHER), page()


@pytest.mark.full  # installs in a second guest
@pytest.mark.timeout(1500)
def test_a_group_of_guests_is_rolled_and_a_second_batch_that_fails_takes_all_back(shop: Shop) -> None:
    """Last of all, since another guest is changed."""
    script = "rm -f /etc/apt/sources.list.d/* && cat > /etc/apt/sources.list"
    inside("sh", "-c", script, stdin=inside("cat", "/etc/apt/sources.list").encode(), guest="db-01")
    vmhost("service", "deploy", _group(shop), "--yes", timeout=500)
    assert _pages() == ("db-01: it works", "web-01: it works")

    how = ("--canary", "1", "--batch", "1", "--max-unavailable", "1", "--yes")
    told = vmhost("service", "roll", "nginx", _group(shop, page="second"), *how, timeout=240).stderr.decode()
    assert _pages() == ("db-01: second", "web-01: second")
    assert told.rindex("web-01: nginx: ") < told.index("db-01: nginx: "), "the canary is done before the other begins"

    bad = {"page": "third", "more": "{% if guest.name == 'db-01' %}return 503;{% endif %}"}
    failed = vmhost("service", "roll", "nginx", _group(shop, **bad), *how, check=False, timeout=240)
    told = failed.stderr.decode()
    assert failed.code == 11, told
    assert "batch 2 of 2: db-01" in told
    assert "status 503, not 200" in told
    assert page() == "web-01: third", "the first batch was good, and stays until it is taken back"
    vmhost("service", "roll", "nginx", "--back", "--yes", timeout=240)
    assert _pages() == ("db-01: second", "web-01: second")

    failed = vmhost(
        "service", "roll", "nginx", _group(shop, **bad), *how, "--rollback-on-failure", check=False, timeout=240
    )
    assert failed.code == 6, failed.stderr.decode()
    assert _pages() == ("db-01: second", "web-01: second")
    assert [(row["guest"], row["health"], row["drift"], row["roll"]) for row in rows()] == [
        ("db-01", "up", [], ""),
        ("web-01", "up", [], ""),
    ]
