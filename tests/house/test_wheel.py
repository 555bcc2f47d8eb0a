"""The wheel is whole: it carries the code, the templates and the command."""

from __future__ import annotations

import subprocess
from pathlib import Path


def _run(python: Path, code: str) -> str:
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_installed_package_is_the_wheels(installed_python: Path, root: Path) -> None:
    place = Path(_run(installed_python, "import vmhost; print(vmhost.__file__)"))
    assert place.is_relative_to(installed_python.parents[1])
    assert not place.is_relative_to(root)


def test_every_template_of_the_tree_is_inside(installed_python: Path, root: Path) -> None:
    data = Path(_run(installed_python, "import importlib.resources as r; print(r.files('vmhost.data'))"))
    for folder in ("domain_templates", "cloud-init"):
        ours = {path.relative_to(root / folder): path.read_bytes() for path in _files(root / folder)}
        packed = {path.relative_to(data / folder): path.read_bytes() for path in _files(data / folder)}
        assert ours, f"{folder}/ is empty"
        assert packed == ours


def test_the_templates_of_a_guest_are_there(installed_python: Path) -> None:
    data = Path(_run(installed_python, "import importlib.resources as r; print(r.files('vmhost.data'))"))
    assert (data / "domain_templates" / "guest.xml.j2").is_file()
    assert list((data / "cloud-init").glob("user-data*"))


def test_the_wheel_alone_renders_a_guest(installed_python: Path) -> None:
    code = """
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost

fake = FakeHost()
fake.add_image("debian-12")
site = parse_site('''
apiVersion: vmhost/v1
name: wheel
bridges: {br0: {address: 10.0.0.1/24}}
networks: {lan: {bridge: br0, subnet: 10.0.0.0/24}}
guests: {web-01: {image: debian-12, memory: 512M, disks: [{size: 4G}], nics: [{network: lan}]}}
''')
for item in Host(ports=fake.ports).plan(site).plan.steps:
    print(item.do.kind, getattr(item.do, "xml", "")[:7], "cloud-init finished" in getattr(item.do, "user_data", ""))
"""
    lines = _run(installed_python, code).splitlines()
    assert "define-domain <domain False" in lines
    assert "create-seed  True" in lines


def test_types_and_command_are_announced(installed_python: Path) -> None:
    code = (
        "import importlib.metadata as m, pathlib, vmhost;"
        "assert pathlib.Path(vmhost.__file__).with_name('py.typed').is_file();"
        "print([e.value for e in m.entry_points(group='console_scripts', name='vmhost')])"
    )
    assert _run(installed_python, code) == "['vmhost.cli.entry:main']"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
