from __future__ import annotations

import json
from dataclasses import replace
from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tests.seed import building
from vmhost.model.errors import SpecError, UsageError, VmhostError
from vmhost.model.spec import GuestSpec, UserDataSpec
from vmhost.ops.cloudinit import cloud_config_schema, network_config_schema
from vmhost.render.cloudconfig import validate_network_config, validate_user_data
from vmhost.render.jsontext import to_json
from vmhost.render.seed import (
    FINISHED,
    fill_secrets,
    host_key_secret,
    known_seed,
    render_seed,
    scrubbed,
    secret_references,
    secret_token,
    seed_files,
)
from vmhost.render.templates import Templates

SITE = building.site()
FULL, PLAIN = SITE.guests
NETWORKS = SITE.networks
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def changed(spec: GuestSpec, **keys: Any) -> GuestSpec:
    return spec.model_copy(update={"cloud_init": spec.cloud_init.model_copy(update=keys)})


def user_data(spec: GuestSpec) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(building.documents(spec, NETWORKS).user_data)
    return found


def ethernets(spec: GuestSpec) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(building.documents(spec, NETWORKS).network_config)["ethernets"]
    return found


def test_meta_data() -> None:
    meta = json.loads(building.documents(FULL, NETWORKS).meta_data)
    assert meta == {"instance-id": building.UUID, "local-hostname": "web-01"}


def test_the_guest_knows_its_names() -> None:
    assert user_data(FULL)["hostname"] == "web-01"
    assert user_data(FULL)["fqdn"] == "web-01.prod.example"
    assert user_data(changed(PLAIN))["fqdn"] == "plain.prod.example"


def test_a_seed_that_says_nothing_new_gives_no_other_host_name() -> None:
    for name, hostname in (("web.prod", "web-prod"), ("db_01", "db-01"), ("renamed-", "renamed-")):
        meta = json.loads(known_seed(building.UUID, name)["meta-data"])
        assert meta == {"instance-id": building.UUID, "local-hostname": hostname}


def test_accounts() -> None:
    ours, alice, bob, carol = user_data(FULL)["users"]
    assert ours["name"] == "vmhost"
    assert ours["ssh_authorized_keys"] == [building.LOGIN_KEY]
    assert ours["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert ours["lock_passwd"] is True
    assert alice["groups"] == ["adm"]
    assert alice["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert bob == {
        "name": "bob",
        "shell": "/bin/sh",
        "lock_passwd": False,
        "passwd": secret_token("env:BOB_HASH"),
        "sudo": "ALL=(ALL:ALL) ALL",
    }
    assert carol == {"name": "carol", "shell": "/bin/bash", "lock_passwd": True}


def test_the_host_key_is_ours_and_the_only_one() -> None:
    data = user_data(FULL)
    assert data["ssh_keys"] == {
        "ed25519_private": secret_token(host_key_secret(building.UUID)),
        "ed25519_public": building.HOST_KEY,
    }
    assert data["ssh_deletekeys"] is True
    assert data["ssh_pwauth"] is False
    assert data["disable_root"] is True


def test_files_of_others_are_written_when_their_owner_exists() -> None:
    motd, note, token = user_data(FULL)["write_files"]
    assert motd["content"] == "no: 12:30\n<&>' \u2028 \U0001f600\n"
    assert "defer" not in motd
    assert note["defer"] is True
    assert note["permissions"] == "0600"
    assert token["content"] == secret_token("file:/srv/token")


def test_commands_end_at_the_first_failure() -> None:
    assert user_data(FULL)["runcmd"][0] == "set -e"
    assert user_data(FULL)["runcmd"][2] == ["install", "-d", "/srv/a b"]


def test_what_is_absent_is_not_there() -> None:
    absent = {"packages", "package_update", "write_files", "runcmd", "timezone"}
    assert not absent & user_data(PLAIN).keys()
    assert absent <= user_data(FULL).keys()


def test_the_console_hears_of_the_end() -> None:
    assert user_data(PLAIN)["final_message"] == FINISHED
    assert "tee" in user_data(PLAIN)["output"]["all"]


def test_nics_are_matched_by_mac_and_the_first_that_can_leads_out() -> None:
    nics = ethernets(FULL)
    assert [nic["match"]["macaddress"] for nic in nics.values()] == [f"52:54:00:00:00:0{number}" for number in range(5)]
    assert nics["net0"]["routes"] == [{"to": "0.0.0.0/0", "via": "10.20.0.1"}]
    assert nics["net0"]["nameservers"] == {"addresses": ["10.20.0.1"], "search": ["prod.example"]}
    assert nics["net1"]["routes"] == [{"to": "::/0", "via": "fd00:1::1"}]
    assert nics["net1"]["mtu"] == 9000
    assert nics["net2"]["addresses"] == ["10.30.0.11/24"]
    assert nics["net2"]["accept-ra"] is False
    assert "routes" not in nics["net2"]
    assert nics["net3"]["dhcp4"] is True
    assert nics["net3"]["dhcp4-overrides"] == {"use-routes": False}
    assert nics["net4"] == {
        "match": {"macaddress": "52:54:00:00:00:04"},
        "set-name": "net4",
        "dhcp4": False,
        "dhcp6": False,
        "link-local": [],
        "optional": True,
    }


def test_dhcp_first_leads_out_and_is_waited_for() -> None:
    nat, prod = ethernets(PLAIN).values()
    assert nat["dhcp4"] is True
    assert nat["dhcp-identifier"] == "mac"
    assert "dhcp4-overrides" not in nat
    assert "optional" not in nat
    assert prod["addresses"] == ["10.20.0.99/24"]
    assert "routes" not in prod


def test_a_guest_without_nics() -> None:
    assert ethernets(PLAIN.model_copy(update={"nics": ()})) == {}


@pytest.mark.parametrize("spec", [FULL, PLAIN], ids=["full", "plain"])
def test_the_documents_are_valid_by_cloud_inits_schemas(spec: GuestSpec) -> None:
    documents = building.documents(spec, NETWORKS)
    filled = fill_secrets(documents.user_data, building.secrets(spec))
    for text in (documents.user_data, filled, scrubbed(documents).user_data):
        assert validate_user_data(text, cloud_config_schema()) == ()
    assert validate_network_config(documents.network_config, network_config_schema()) == ()


def test_the_schemas_find_faults() -> None:
    bad = '{"hostname": 1, "runmcd": [], "growpart": {"mode": "never"}}'
    assert [(fault.path, fault.message) for fault in validate_user_data(bad, cloud_config_schema())] == [
        ("", "unknown key 'runmcd'; did you mean 'runcmd'?"),
        ("growpart.mode", '\'never\' is not one of "auto", "growpart", "gpart", "off"'),
        ("hostname", "1 is not string"),
    ]
    assert validate_network_config('{"version": 2, "ethernets": {"a": {"dhcp4": "maybe"}}}', network_config_schema())


def test_references_are_named_with_their_places() -> None:
    twice = FULL.cloud_init.files[2]
    spec = changed(FULL, files=(twice, twice.model_copy(update={"path": "/b"})))
    assert [(place, reference.key()) for place, reference in secret_references(spec)] == [
        ("password_hash of user bob", "env:BOB_HASH"),
        (f"secret of file {twice.path}", "file:/srv/token"),
        ("secret of file /b", "file:/srv/token"),
    ]


def test_secrets_are_in_the_files_and_nowhere_else() -> None:
    documents, values = building.documents(FULL, NETWORKS), building.secrets(FULL)
    assert not any(value in repr(documents) for value in values.values())
    files = seed_files(documents, values)
    assert files.keys() == {"meta-data", "user-data", "network-config"}
    head, _, body = files["user-data"].decode().partition("\n")
    assert head == "#cloud-config"
    config = json.loads(body)
    assert config["users"][2]["passwd"] == "secret of env:BOB_HASH"
    assert config["write_files"][2]["content"] == "secret of file:/srv/token"
    assert config["ssh_keys"]["ed25519_private"].endswith("-----END OPENSSH PRIVATE KEY-----\n")


def test_a_missing_secret_is_named_by_its_key_only() -> None:
    with pytest.raises(VmhostError, match="not at hand") as caught:
        seed_files(building.documents(FULL, NETWORKS), {"env:BOB_HASH": "hunter2"})
    assert "hunter2" not in str(caught.value)


@given(TEXTS)
def test_a_secret_cannot_leave_its_place(secret: str) -> None:
    document = to_json({"a": secret_token("env:X"), "b": [secret_token("env:X"), "<vmhost-secret"], "c": "d"})
    assert json.loads(fill_secrets(document, {"env:X": secret})) == {
        "a": secret,
        "b": [secret, "<vmhost-secret"],
        "c": "d",
    }


def test_only_whole_values_are_tokens() -> None:
    token = secret_token("env:X")
    data = {"a": f"{token} ", "b": f"x{token}", token: {"c": token}}
    assert json.loads(fill_secrets(to_json(data), {"env:X": "S"})) == {
        "a": f"{token} ",
        "b": f"x{token}",
        token: {"c": "S"},
    }


@pytest.mark.parametrize("key", ["commands", "files"])
def test_a_text_that_is_a_token_is_refused(key: str) -> None:
    token = secret_token(host_key_secret(building.UUID))
    file = FULL.cloud_init.files[0].model_copy(update={"content": token})
    spec = changed(FULL, **{key: (token,) if key == "commands" else (file,)})
    with pytest.raises(SpecError, match="not possible"):
        building.documents(spec, NETWORKS)


@given(TEXTS)
def test_every_text_survives_the_trip(text: str) -> None:
    """Whatever stands in a site comes out of cloud-init's YAML 1.1 as it was, between the same neighbours."""
    files = tuple(file.model_copy(update={"content": text}) for file in FULL.cloud_init.files[:1])
    spec = changed(FULL, files=files, commands=(text, ("echo", text)), user_data=None)
    body = seed_files(building.documents(spec, NETWORKS), building.secrets(spec))["user-data"].decode()
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    data = yaml.load(body)
    assert data == json.loads(body.partition("\n")[2])
    assert data["write_files"][0]["content"] == text
    assert data["runcmd"] == ["set -e", text, ["echo", text]]
    assert data["hostname"] == "web-01"


WORDS_OF_YAML = [
    "no",
    "yes",
    "on",
    "off",
    "y",
    "null",
    "~",
    "12:30",
    "1_000",
    "0644",
    "0x1f",
    "1e3",
    ".inf",
    "=",
    "<<",
    "2024-01-01",
    "- a",
    "a: b",
    "#x",
    "{{ x }}",
    "{% x %}",
    "$(id)",
    "`id`",
    "\\",
    '"',
    "'",
    "</domain>",
    "%",
    "@",
    "\u2028",
    "\x85",
]


@pytest.mark.parametrize("word", WORDS_OF_YAML)
def test_words_that_yaml_takes_for_something_else(word: str) -> None:
    spec = changed(PLAIN, commands=(word,))
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    assert yaml.load(building.documents(spec, NETWORKS).user_data)["runcmd"] == ["set -e", word]


def test_the_scrubbed_seed_keeps_the_instance_and_no_secret() -> None:
    first = building.documents(
        changed(FULL, user_data=UserDataSpec(content="#cloud-config\nbootcmd: [[ls]]\n")), NETWORKS
    )
    clean = scrubbed(first)
    assert clean.meta_data == first.meta_data
    assert clean.network_config == first.network_config
    assert clean.extra_user_data == first.extra_user_data
    assert "vmhost-secret" not in repr(clean)
    assert json.loads(clean.user_data)["final_message"] == FINISHED
    assert not {"users", "ssh_keys", "ssh_deletekeys", "write_files", "runcmd"} & json.loads(clean.user_data).keys()
    assert seed_files(clean, {})


def test_own_user_data_travels_unchanged_before_ours() -> None:
    own = "#cloud-config\r\nhostname: theirs # ü \U0001f600\n--==\n"
    documents = replace(building.documents(PLAIN, NETWORKS), extra_user_data=own)
    data = seed_files(documents, building.secrets(PLAIN))["user-data"]
    assert data == seed_files(documents, building.secrets(PLAIN))["user-data"]
    first, second = message_from_bytes(data).get_payload()
    assert first.get_payload(decode=True).decode() == own
    assert first.get_content_type() == "text/plain"
    assert second.get_content_type() == "text/cloud-config"
    assert second["Merge-Type"] == "dict(no_replace,recurse_list)+list(append)+str()"
    assert second.get_payload(decode=True).startswith(b"#cloud-config\n{")


def test_a_template_that_makes_no_json_is_named() -> None:
    files = building.templates().files | {"user-data.j2": '{"hostname": {{ hostname }}}'}
    with pytest.raises(UsageError, match=r"user-data\.j2: this template does not make JSON"):
        render_seed(
            PLAIN,
            building.identity(PLAIN, NETWORKS),
            NETWORKS,
            login_key=building.LOGIN_KEY,
            templates=Templates(files, sandboxed=True),
        )
