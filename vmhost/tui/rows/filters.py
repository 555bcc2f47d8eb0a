"""The filter behind ``/``: words that all must hold; ``!word`` must not; ``label=KEY`` or ``label=KEY=VALUE``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache

from vmhost.model.domains import ObservedDomain

Test = Callable[[ObservedDomain], bool]


def tests_of(text: str) -> tuple[Test, ...]:
    """Return what a guest must pass to be shown."""
    return tuple(_test(word) for word in text.lower().split())


def passes(domain: ObservedDomain, tests: tuple[Test, ...]) -> bool:
    """Whether a guest is shown."""
    return all(test(domain) for test in tests)


def _test(word: str) -> Test:
    if word.startswith("!"):
        inner = _test(word[1:])
        return lambda domain: not word[1:] or not inner(domain)
    if word.startswith("label="):
        key, equals, value = word.removeprefix("label=").partition("=")
        return lambda domain: _labelled(labels_of(domain), key, value if equals else None)
    return lambda domain: word in _haystack(domain)


def labels_of(domain: ObservedDomain) -> Mapping[str, str]:
    """Return the labels of a guest's last applied spec; a foreign one has none."""
    return _labels(domain.metadata.spec) if domain.metadata else {}


@lru_cache(maxsize=8192)
def _labels(spec: str) -> Mapping[str, str]:
    try:
        found = json.loads(spec or "{}").get("labels") or {}
    except (ValueError, AttributeError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _labelled(labels: Mapping[str, str], key: str, value: str | None) -> bool:
    return any(
        name.lower() == key and (value is None or text.lower().startswith(value)) for name, text in labels.items()
    )


def _haystack(domain: ObservedDomain) -> str:
    metadata = domain.metadata
    site = metadata.site if metadata else "drill" if domain.drill else "foreign"
    addresses = " ".join(nic.address for nic in metadata.identity.nics) if metadata else ""
    return f"{domain.name}\n{domain.raw.state}\n{site}\n{addresses}".lower()
