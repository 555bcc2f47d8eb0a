"""Commands around a freeze: in order, all of them, and what fails is told."""

from __future__ import annotations

from collections.abc import Sequence

from tests.services.shop import NGINX, Shop
from vmhost.model.errors import DriverError
from vmhost.testing.commands import Inside, Ran

TWO = (
    NGINX.replace("[web-01, web-02]", "[web-01]")
    + """\
    hooks: {pre_freeze: [hook, nginx, before], post_thaw: [hook, nginx, after]}
  app:
    guests: [web-01]
    hooks: {pre_freeze: [hook, app, fails], post_thaw: [hook, app, after]}
  silent:
    guests: [web-01]
"""
)


def test_hooks_run_in_order_and_back_and_a_failure_keeps_nobody() -> None:
    shop = Shop()
    ran: list[tuple[str, ...]] = []

    def hook(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
        assert inside.user == "root"
        ran.append(tuple(arguments))
        return Ran(stderr=b"no\x1b[2J\n", exit_code=3) if "fails" in arguments else Ran()

    shop.fake.programs["hook"] = hook
    shop.deploy(TWO)
    before = shop.services.hooks("web-01", "pre_freeze")
    after = shop.services.hooks("web-01", "post_thaw")
    assert ran == [("app", "fails"), ("nginx", "before"), ("nginx", "after"), ("app", "after")]
    assert [result.text for result in before] == [
        "pre_freeze of app ended with 3: no\\x1b[2J",
        "pre_freeze done",
    ]
    assert isinstance(before[0].error, DriverError)
    assert [result.error for result in after] == [None, None]
