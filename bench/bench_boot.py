"""From a real guest's own mark on its serial console to the return of ``host.apply``.

Run in a lab that has the image: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_boot [BOOTS]``.
A unit of the guest waits for cloud-init's last file from its first stage on, by inotify, and writes the mark as soon as
it is there. The mark is seen on the host in the file that the console is logged to.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from pathlib import Path

from bench.ab import p95
from vmhost.model.permit import Permit
from vmhost.model.spec import Site
from vmhost.ops.host import Host, connect
from vmhost.ops.sites import parse_site

PROMISED_MS = 100.0
LOOK = 0.001
MARK = b"bench: cloud-init has ended"
IMAGE = "debian-12"
SITE = """
apiVersion: vmhost/v1
name: bench
networks: {{lan: {{bridge: br-lab, subnet: 10.99.0.0/24}}}}
guests:
  booted:
    image: {image}
    memory: 512M
    disks: [{{size: 4G}}]
    nics: [{{network: lan}}]
    ready: {{timeout: 20m}}
    cloud_init:
      files:
        - path: /etc/systemd/system/mark.service
          content: |
            [Unit]
            After=cloud-init-local.service
            [Service]
            ExecStart=/usr/local/sbin/mark
            [Install]
            WantedBy=cloud-init.target
        - path: /usr/local/sbin/mark
          mode: "0755"
          content: |
            #!/bin/sh
            d=/var/lib/cloud/data
            tail -q -n +1 -F $d/status.json $d/result.json | while read -r _; do test -e $d/result.json && break; done
            echo "{mark}" > /dev/ttyS0
      commands: [systemctl enable mark.service]
"""


class Watch(threading.Thread):
    """Notes the moment at which the next mark comes to a console's log."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self._log = log
        self._from = log.stat().st_size
        self.seen: float | None = None

    def run(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._from)
            text = b""
            while MARK not in text:
                text += log.read()
                time.sleep(LOOK)
        self.seen = time.monotonic()


def boot(host: Host, site: Site, log: Path) -> float:
    """Shut the guest down, apply the site, and return the seconds from its mark to our return."""
    for result in host.power(["booted"], "stop"):
        if result.error:
            raise result.error
    watch = Watch(log)
    watch.start()
    host.apply(host.plan(site))
    returned = time.monotonic()
    watch.join(60)
    if watch.seen is None:
        raise TimeoutError("the guest gave no mark")
    return returned - watch.seen


def main() -> int:
    """Measure and print; return 1 when the promise was not kept."""
    boots = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    site = parse_site(SITE.format(image=IMAGE, mark=MARK.decode()))
    with connect() as host:
        host.apply(host.plan(site))
        log = host.ports.layout.logs / f"{host.guest('booted').row.uuid}.console.log"
        try:
            lags = [boot(host, site, log) for _ in range(boots)]
        finally:
            host.apply(host.plan_delete(["booted"], Permit(power_off=True, disks=True)))
    return told(lags)


def told(lags: list[float]) -> int:
    """Print the table; return 1 when the promise was not kept, else 0."""
    median, late, last = (seconds * 1e3 for seconds in (statistics.median(lags), p95(lags), max(lags)))
    out = sys.stdout.write
    out("\nFrom a real guest's mark to our return\n\n")
    out("| boots | median ms | 95th percentile ms | latest ms |\n|---|---|---|---|\n")
    out(f"| {len(lags)} | {median:.1f} | {late:.1f} | {last:.1f} |\n")
    kept = late <= PROMISED_MS
    out(f"\nready lag: {late:.0f} ms, promised at most {PROMISED_MS:.0f}: {'kept' if kept else 'NOT KEPT'}\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
