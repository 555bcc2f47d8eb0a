"""What real cloud-init makes of our seeds: of Debian 12 (22.4) and of Debian 13 (25.1), from unpacked packages."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.seed import building
from tests.seed.test_seed import FULL, NETWORKS, PLAIN, WORDS_OF_YAML, changed
from tests.seed.witness import PACKAGES, CloudInit, cloud_init
from vmhost.model.spec import GuestSpec, UserDataSpec
from vmhost.render.jsontext import to_json
from vmhost.render.seed import scrubbed, seed_files

pytestmark = [pytest.mark.serial, pytest.mark.timeout(420)]  # it fetches packages, which no lab can

MERGE = """
import base64, tempfile
from cloudinit import helpers, user_data
from cloudinit.handlers import cloud_config, walker_handle_handler, CONTENT_START, CONTENT_END
paths = helpers.Paths({"cloud_dir": tempfile.mkdtemp(), "run_dir": tempfile.mkdtemp()})
message = user_data.UserDataProcessor(paths).process(base64.b64decode(given))
handler = cloud_config.CloudConfigPartHandler(paths)
handler.handle_part(None, CONTENT_START, None, None, None, None)
kinds = []
for part in message.walk():
    if part.is_multipart():
        continue
    kinds.append(part.get_content_type())
    if part.get_content_type() == "text/cloud-config":
        text = part.get_payload(decode=True).decode()
        handler.handle_part(None, "text/cloud-config", part.get_filename() or "part", text, None, part)
answer = {"config": handler.cloud_buf, "kinds": kinds}
"""
YAML = "from cloudinit import util; answer = [util.load_yaml(text, allowed=(object,)) for text in given]"


@pytest.fixture(params=["bookworm", "trixie"], scope="session")
def witness(request: pytest.FixtureRequest) -> CloudInit:
    return cloud_init(request.param)


def merged(witness: CloudInit, spec: GuestSpec) -> dict[str, Any]:
    data = seed_files(building.documents(spec, NETWORKS), building.secrets(spec))["user-data"]
    answer: dict[str, Any] = witness.call(MERGE, base64.b64encode(data).decode())
    return answer


@pytest.mark.parametrize("spec", [FULL, PLAIN], ids=["full", "plain"])
@pytest.mark.parametrize("boot", ["first", "later"])
def test_its_own_schema_command_finds_nothing(witness: CloudInit, tmp_path: Path, spec: GuestSpec, boot: str) -> None:
    documents = building.documents(spec, NETWORKS)
    if boot == "later":
        documents = scrubbed(documents)
    path = tmp_path / "user-data"
    path.write_bytes(seed_files(documents, building.secrets(spec))["user-data"])
    told = witness.run("schema", "--config-file", str(path), check=False)
    assert told.code == 0, told
    assert "Valid" in told.text
    assert "deprecat" not in told.text.lower()


def test_its_schema_command_finds_faults(witness: CloudInit, tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\nhostname: 1\n")
    assert witness.run("schema", "--config-file", str(path), check=False).code != 0


def test_its_network_schema_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "network-config"
    path.write_text(building.documents(FULL, NETWORKS).network_config)
    told = cloud_init("trixie").run("schema", "-t", "network-config", "-c", str(path))
    assert "Valid" in told.text


def test_it_reads_what_we_wrote(witness: CloudInit) -> None:
    documents = building.documents(FULL, NETWORKS)
    texts = [documents.meta_data, documents.user_data, documents.network_config]
    assert witness.call(YAML, texts) == [json.loads(text) for text in texts]


def test_it_reads_every_character_as_it_was(witness: CloudInit) -> None:
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    lines = ["".join(everything[start : start + 4096]) for start in range(0, len(everything), 4096)]
    assert witness.call(YAML, [to_json([*WORDS_OF_YAML, *lines])]) == [[*WORDS_OF_YAML, *lines]]


def test_without_own_user_data_ours_is_all(witness: CloudInit) -> None:
    answer = merged(witness, FULL)
    assert answer["kinds"] == ["text/cloud-config"]
    assert [user["name"] for user in answer["config"]["users"]] == ["vmhost", "alice", "bob", "carol"]


OWN = """#cloud-config
hostname: theirs
users: [default, {name: dave}]
packages: [tmux]
runcmd: [[echo, own]]
write_files: [{path: /own, content: x}]
growpart: {devices: [/data]}
bootcmd: [[echo, every boot]]
"""


def test_own_user_data_wins_and_lists_are_joined(witness: CloudInit) -> None:
    config = merged(witness, changed(FULL, user_data=UserDataSpec(content=OWN)))["config"]
    assert config["hostname"] == "theirs"
    assert config["fqdn"] == "web-01.prod.example"
    assert [user if isinstance(user, str) else user["name"] for user in config["users"]] == [
        "default",
        "dave",
        "vmhost",
        "alice",
        "bob",
        "carol",
    ]
    assert config["packages"] == ["tmux", "nginx", "htop"]
    assert config["runcmd"][:2] == [["echo", "own"], "set -e"]
    assert [file["path"] for file in config["write_files"]] == ["/own", "/etc/motd", "/home/alice/note", "/etc/token"]
    assert config["growpart"] == {"mode": "auto", "devices": ["/data", "/"]}
    assert config["bootcmd"] == [["echo", "every boot"]]
    assert config["ssh_keys"]["ed25519_public"] == building.HOST_KEY


@pytest.mark.parametrize(
    ("own", "kinds"),
    [
        ("#!/bin/sh\necho own\n", ["text/x-shellscript", "text/cloud-config"]),
        ("#cloud-boothook\necho own\n", ["text/cloud-boothook", "text/cloud-config"]),
        ("#part-handler\n", ["text/part-handler", "text/cloud-config"]),
        ("## template: jinja\n#cloud-config\n{}\n", ["text/jinja2", "text/cloud-config"]),
        (
            '#cloud-config-archive\n- "#!/bin/sh"\n- "#cloud-config\\npackages: [tmux]"\n',
            ["text/x-shellscript", "text/cloud-config", "text/cloud-config"],
        ),
    ],
)
def test_own_user_data_of_other_formats(witness: CloudInit, own: str, kinds: list[str]) -> None:
    answer = merged(witness, changed(PLAIN, user_data=UserDataSpec(content=own)))
    assert answer["kinds"] == kinds
    assert [user["name"] for user in answer["config"]["users"]] == ["vmhost"]


RENDERED = {
    "netplan": "etc/netplan/50-cloud-init.yaml",
    "networkd": "etc/systemd/network/10-cloud-init-net0.network",
    "eni": "etc/network/interfaces.d/50-cloud-init",
    "network-manager": "etc/NetworkManager/system-connections/cloud-init-net0.nmconnection",
}


@pytest.mark.parametrize("renderer", RENDERED)
@pytest.mark.parametrize("spec", [FULL, PLAIN], ids=["full", "plain"])
def test_every_renderer_takes_the_network_config(
    witness: CloudInit, tmp_path: Path, renderer: str, spec: GuestSpec
) -> None:
    source, target = tmp_path / "network-config", tmp_path / "out"
    source.write_text(building.documents(spec, NETWORKS).network_config)
    argv = ["devel", "net-convert", "-p", str(source), "-k", "yaml", "-d", str(target), "-D", "debian", "-O", renderer]
    witness.run(*argv)
    text = (target / RENDERED[renderer]).read_text()
    if spec is FULL:
        assert "10.20.0.11/24" in text
        assert "10.20.0.1\n" in text
    else:
        assert "dhcp" in text.lower() or "method=auto" in text


@pytest.mark.parametrize("renderer", ["networkd", "eni"])
def test_renderers_without_netplan_match_by_name(tmp_path: Path, renderer: str) -> None:
    """The reason for our own NIC names: without set-name these would match a name that no NIC has."""
    source = tmp_path / "network-config"
    config = json.loads(building.documents(PLAIN, NETWORKS).network_config)
    assert all(nic["set-name"] == name for name, nic in config["ethernets"].items())
    source.write_text(json.dumps(config))
    argv = ["-p", str(source), "-k", "yaml", "-d", str(tmp_path / "out"), "-D", "debian", "-O", renderer]
    cloud_init("bookworm").run("devel", "net-convert", *argv)
    assert "net0" in (tmp_path / "out" / RENDERED[renderer]).read_text()


def test_our_schemas_are_those_of_the_package() -> None:
    ours = building.ROOT / "vmhost" / "data" / "cloud-init-schema"
    theirs = cloud_init("trixie").root / PACKAGES / "cloudinit" / "config" / "schemas"
    for name in ("schema-cloud-config-v1.json", "schema-network-config-v2.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
