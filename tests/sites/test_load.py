"""Files that are no site files, and what the loader reads beside a site file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmhost.model.errors import NotFound, PermissionDenied, SpecError, VmhostError
from vmhost.model.spec import FileRef, Site
from vmhost.ops.sites import SITE_LIMIT, load_site, parse_site, site_schema

HEAD = "apiVersion: vmhost/v1\nname: x\n"


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_site(path)
    assert caught.value.subject == str(path)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file") as caught:
        load_site(tmp_path / "site.yaml")
    assert caught.value.hint


def test_a_directory(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answers: list[str] = []
    reader = threading.Thread(target=lambda: answers.append(refused(tmp_path / "pipe")), daemon=True)
    reader.start()
    reader.join(5)
    assert "not a regular file" in answers[0]


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(HEAD)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)  # root may read everything
    with pytest.raises(PermissionDenied, match="may not be read"):
        load_site(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF\x02\x01\x01\x00", "is not allowed"),
        (b"name: gr\xfc\xdfe", "is not UTF-8 text: byte 0xfc on line 1"),
        (b"\xff\xfen\x00a\x00", "is not UTF-8"),
        (b"a: 1\nb: \x07\n", "line 2: the character '\\x07'"),
        (b"#" * (SITE_LIMIT + 1), "larger than 1M"),
        (b"[" * 5000, "nested more than 32 deep"),
        (b"- " * 5000, "nested more than 32 deep"),
        (b"{" * 5000, "a key is a word"),
        (b"[" + b"0," * 60_000 + b"]", "more than 50,000 values"),
        (b"a: " + b"'" * 3, "not YAML"),
        (b"\t", "tab"),
        (b'a: "\\ud800"', "surrogate"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(data)
    assert message in refused(path)


def test_a_byte_order_mark_and_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    assert load_site(path).name == "x"


def test_thousands_of_faults_are_counted() -> None:
    with pytest.raises(SpecError) as caught:
        parse_site(HEAD + "guests:\n" + "".join(f"  g{number}: 1\n" for number in range(1000)))
    assert len(caught.value.faults) == 201
    assert caught.value.faults[-1].message == "and 800 further faults"


def test_relative_paths_start_at_the_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "own.sh").write_text("#!/bin/sh\n")
    path = tmp_path / "site.yaml"
    secrets = "{path: /a, secret: {file: s/a}}, {path: /b, secret: {file: ~/b}}, {path: /c, secret: {file: /c}}"
    path.write_text(
        f"{HEAD}networks: {{nat: {{type: user}}}}\n"
        "guests: {web: {image: i, memory: 1G, disks: [{size: 1G}], nics: [{network: nat}],\n"
        f" cloud_init: {{user_data: own.sh, files: [{secrets}]}}}}}}\n"
    )
    monkeypatch.chdir("/")
    seed = load_site(path).guests[0].cloud_init
    assert seed.user_data is not None
    assert seed.user_data.content == "#!/bin/sh\n"
    files = [file.secret.file for file in seed.files if isinstance(file.secret, FileRef)]
    assert files == [str(tmp_path / "s/a"), "/home/somebody/b", "/c"]


def test_a_site_with_many_guests_is_read_in_time() -> None:
    body = "".join(f"  g{number}: {{nics: [{{network: n}}], labels: {{n: '{number}'}}}}\n" for number in range(1000))
    text = HEAD + "networks: {n: {bridge: b, subnet: 10.0.0.0/16}}\n"
    text += "defaults: {image: i, memory: 1G, disks: [{size: 1G}]}\nguests:\n" + body
    assert len(parse_site(text).guests) == 1000


def answer(text: str) -> Site | SpecError:
    try:
        return parse_site(text)
    except SpecError as error:
        return error


@given(st.text())
def test_any_text_is_a_site_or_says_why_not(text: str) -> None:
    assert all(line.isprintable() for line in str(answer(text)).splitlines())


VOCABULARY = """
apiVersion vmhost/v1 name x guests web networks prod bridges br0 defaults profiles image memory 1G disks size nics
network address auto none 10.0.0.1 10.0.0.0/24 subnet gateway cloud_init users files path content secret file env
user_data commands count profile ready by ssh cpus max labels vlan 100 type user - .. true null
"""
WORDS = st.sampled_from(VOCABULARY.split())
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(-2, 5000), st.none(), st.booleans(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(WORDS, VALUES, max_size=6))
def test_any_structure_is_a_site_or_says_why_not(data: dict[str, object]) -> None:
    found = answer(json.dumps({"apiVersion": "vmhost/v1", "name": "x"} | data))
    if isinstance(found, Site):
        assert Site.model_validate_json(found.model_dump_json()) == found
    else:
        assert found.faults
        assert all(fault.line >= 1 for fault in found.faults)


def test_a_fault_never_hides_behind_another_kind() -> None:
    """A key that pydantic refuses and a reference that the resolver refuses are both told."""
    with pytest.raises(SpecError) as caught:
        parse_site(HEAD + "guests:\n  a: {image: 1, nics: [{network: lost}]}\n  b: {profile: lost}\n")
    assert [fault.line for fault in caught.value.faults] == [4, 4, 5]


def test_every_key_of_the_schema_is_explained() -> None:
    schema = site_schema()
    models = {"site": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, model in models.items()
        for key, value in model.get("properties", {}).items()
        if not value.get("description")
    ]
    assert silent == []
    assert [name for name, model in models.items() if not model.get("description")] == []
    assert schema["$schema"].endswith("2020-12/schema")


def test_errors_name_the_text(tmp_path: Path) -> None:
    with pytest.raises(VmhostError, match=r"^mine: line 2: nam: unknown key"):
        parse_site("apiVersion: vmhost/v1\nnam: x\nname: x\n", "mine")
