from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from vmhost.ops.yamlfile import read_tree

PLAIN = """
none: [~, null, Null, NULL, ]
nothing:
bools: [true, True, TRUE, false, False, FALSE]
texts: [yes, no, on, off, y, n, 12:30, 2024-01-01, 0b1, 1_000, 1.2.3, 0x, 0o8, "1", 'true', nUll, "", ., +, -]
numbers: [0, 1, -1, +1, 0644, 0o17, 0x1f, 1.5, -0.5, .5, 1., 1e3, 1.5e-3, 123456789012345678]
folded: >
  a
  b
literal: |
  a
  b
"""


def test_plain_scalars_follow_the_core_schema() -> None:
    tree = read_tree(PLAIN)
    assert not tree.faults
    assert tree.data["none"] == [None] * 4
    assert tree.data["nothing"] is None
    assert tree.data["bools"] == [True] * 3 + [False] * 3
    assert all(isinstance(value, str) for value in tree.data["texts"])
    assert tree.data["numbers"] == [0, 1, -1, 1, 644, 15, 31, 1.5, -0.5, 0.5, 1.0, 1000.0, 0.0015, 123456789012345678]
    assert tree.data["folded"] == "a b\n"
    assert tree.data["literal"] == "a\nb\n"


def test_lines() -> None:
    tree = read_tree("a: 1\nb:\n  c: [x,\n    y]\n  d.e:\n    - f: 1\n")
    assert tree.line("a") == 1
    assert tree.line("b.c") == 3
    assert tree.line("b.c[1]") == 4
    assert tree.line("b.d.e[0].f") == 6
    assert tree.line("b.d.e[0].missing") == 6
    assert tree.line("b.c[1].x.y[7]") == 4
    assert tree.line("nowhere.at.all") == 1
    assert tree.line("") == 1


def test_every_duplicate_is_a_fault_and_the_first_value_stays() -> None:
    tree = read_tree("a: 1\na: 2\nb: {c: 1, c: {d: 1}}\na: [3]\n")
    assert [(fault.line, fault.path) for fault in tree.faults] == [(2, "a"), (3, "b.c"), (4, "a")]
    assert tree.data == {"a": 1, "b": {"c": 1}}


@pytest.mark.parametrize(
    "text", ["*a : 1", "a: *b", "&a b: 1", "? a\n? b", "[a, b]: c", "{a: 1}: 2", "!x a: 1", "a: !x"]
)
def test_what_other_yaml_has_is_a_fault_or_plain(text: str) -> None:
    tree = read_tree(text)
    assert tree.faults or tree.data is not None


def test_keys_are_told_apart_as_texts() -> None:
    assert read_tree("~:\n:").data == {"~": None, "": None}
    assert read_tree("~: 1\n~: 2").faults


def test_keys_are_texts() -> None:
    assert read_tree("1: a\ntrue: b\n~: c\n").data == {"1": "a", "true": "b", "~": "c"}


LONGEST_KEY = (
    1024  # YAML 1.2, 7.4.2: the ':' of a key that is not marked by '?' comes at most that far behind its start
)


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_longest_key(quote: str) -> None:
    key = "k" * (LONGEST_KEY - 2 * len(quote))
    tree = read_tree(f"{{{quote}{key}{quote}: 1}}")
    assert not tree.faults
    assert tree.data == {key: 1}


def test_a_longer_key_is_a_fault_that_says_so() -> None:
    tree = read_tree(f'{{"{"k" * LONGEST_KEY}": 1}}')
    assert [fault.line for fault in tree.faults] == [1]
    assert "longer than 1,024 characters" in tree.faults[0].message


def _fits(key: str) -> bool:
    return len(json.dumps(key)) <= LONGEST_KEY


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DATA = st.recursive(
    TEXTS
    | st.integers(-(10**17), 10**17)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS.filter(_fits), inner),
    max_leaves=30,
)


@given(DATA)
def test_json_reads_as_json(data: Any) -> None:
    tree = read_tree(json.dumps(data))
    assert not tree.faults
    assert tree.data == data


@given(st.text(alphabet="ab:-? ,[]{}#&*!|>'\"%@`\n\t01.~", max_size=40))
def test_what_ruamel_refuses_is_refused(text: str) -> None:
    try:
        expected = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError:
        # To ruamel ~ and null are one key; ours are texts.
        assert read_tree(text).faults or not _repeats_a_text(text)
        return
    except (YAMLError, ValueError, TypeError):
        assert read_tree(text).faults
        return
    tree = read_tree(text)
    if not tree.faults and not isinstance(expected, set):
        assert _plain(tree.data) == _plain(expected)


def _repeats_a_text(text: str) -> bool:
    try:
        YAML(typ="base", pure=True).load(text)
    except DuplicateKeyError:
        return True
    return False


def _plain(data: Any) -> Any:
    """Compare shapes and texts: our keys are texts, and ruamel knows more kinds of numbers than the core schema."""
    if isinstance(data, dict):
        return {"mapping": [_plain(value) for value in data.values()]}
    if isinstance(data, list):
        return [_plain(value) for value in data]
    return data if isinstance(data, str) else "scalar"
