"""The JSON Schema accepts what the loader accepts: editors must not mark what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from vmhost.ops.sites import site_schema

CASES = Path(__file__).parent / "cases"
EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE_SITES = [path for path in sorted(EXAMPLES.glob("*.yaml")) if "apiVersion:" in path.read_text()]
GOOD = [*sorted(CASES.glob("good-*/site.yaml")), *EXAMPLE_SITES]
BAD = [CASES / name / "site.yaml" for name in ("keys", "names", "types", "version", "list")]


def faults(path: Path) -> list[Any]:
    data = YAML(typ="safe", pure=True).load(path)
    return list(Draft202012Validator(site_schema()).iter_errors(data))


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(site_schema())


@pytest.mark.parametrize("path", GOOD, ids=str)
def test_what_loads_is_valid(path: Path) -> None:
    assert [error.message for error in faults(path)] == []


@pytest.mark.parametrize("path", BAD, ids=str)
def test_what_has_wrong_keys_or_types_is_not(path: Path) -> None:
    assert faults(path)
