"""The README and the manual say what the command line does, and leave nothing of it out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

import vmhost
from tests.manual import MANUAL, blocks, command_lines, pages
from vmhost.cli.diagnostics import EXIT_CODES
from vmhost.cli.main import cli
from vmhost.model import errors
from vmhost.ops.host import Host

GENERATED = "commands"
"""The page that is made from the commands themselves: it shows nothing about the rest of the manual."""

FOR_ALL = {"--help", "--version", "--connect", "--output", "--yes"}
TYPED = re.compile(r"^(?:sudo (?:-\S+ )*)?(?:[A-Z_]+=\S* )*vmhost(?= |$)")


def _named_commands(readme: str) -> list[tuple[str, ...]]:
    """Return the commands of a table: ``vmhost guest list``, ``show`` means ``guest show`` as well."""
    named = []
    for row in re.findall(r"^\| (`vmhost [^|]+) \|", readme, re.MULTILINE):
        first, *others = [
            tuple(word for word in code.split() if word.islower()) for code in re.findall(r"`([^`]+)`", row)
        ]
        named.append(first[1:])
        named += [other[1:] if other[0] == "vmhost" else (*first[1:-1], *other) for other in others]
    return named


def _is_there(words: tuple[str, ...]) -> bool:
    command: click.Command | None = cli
    for word in words:
        if not isinstance(command, click.Group):
            return False
        command = command.get_command(click.Context(command), word)
    return command is not None


def _leaves(command: click.Command = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield every command with its long flags."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _leaves(found, (*words, name))
    else:
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        yield words, {flag for flag in known if flag.startswith("--")} - FOR_ALL


def _typed(text: str) -> Iterator[str]:
    """Yield every vmhost command of a page, in blocks and between backticks, without ``vmhost`` itself."""
    for block in blocks(text):
        session = "".join(f"{line}\n" for line in command_lines(block.text)) if "$ " in block.text else block.text
        for line in session.splitlines() if block.language in ("", "console", "sh") else ():
            if TYPED.match(line):
                yield TYPED.sub("", line).strip()
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text)):
        if TYPED.match(code):
            yield TYPED.sub("", code).strip()


def _fault(line: str) -> str:
    """Return what is wrong with the words after ``vmhost``, or an empty text."""
    words = re.split(r" -- | +# |[|;>&]", line)[0].split()
    command: click.Command = cli
    options = [option for option in command.params if isinstance(option, click.Option)]
    while words and isinstance(command, click.Group):
        word = words.pop(0)
        if word in ("-c", "--connect"):
            words = words[1:]
        elif not word.startswith("-"):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return "" if word == "..." or word.isupper() else "no such command"
            command = found
            options += [option for option in command.params if isinstance(option, click.Option)]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)} | {"-h", "--help"}
    return next((f"no flag {word}" for word in words if word.startswith("-") and word.split("=")[0] not in known), "")


def _strange(name: str, text: str) -> list[str]:
    """Return what a page names and the command line does not know."""
    found = [f"vmhost {line}: {fault}" for line in _typed(text) if (fault := _fault(line))]
    flags = {flag for _, flags in _leaves() for flag in flags} | FOR_ALL
    bare = re.findall(r"`(--[a-z-]+)(?: [A-Z]+)?`", text)
    found += [f"{flag}: no flag of any command" for flag in bare if flag not in flags]
    codes = re.findall(r"exit (?:code )?(\d+)|^\$ echo \$\?\n(\d+)$", text, re.MULTILINE)
    known = {*EXIT_CODES, 255}
    found += [f"exit code {code}" for pair in codes for code in pair if code and int(code) not in known]
    return [f"{name}: {each}" for each in found]


def _missing(texts: Mapping[str, str]) -> list[str]:
    """Return the commands, and their flags, that no page explains."""
    text = "\n".join(text for name, text in texts.items() if name != GENERATED)
    named = [" ".join(_spread(line)) for line in _typed(text)]
    missing = []
    for words, flags in _leaves():
        command = " ".join(words)
        if not any(line == command or line.startswith(f"{command} ") for line in named):
            missing.append(command)
        missing += [f"{command} {flag}" for flag in sorted(flags) if not re.search(rf"{flag}\b(?!-)", text)]
    return missing


def _spread(line: str) -> list[str]:
    return [word for word in line.split() if word not in ("-c", "fake:demo")]


def _unmarked(text: str) -> list[str]:
    """Return sessions that say neither that they are replayed nor where they were seen."""
    sessions = [block for block in blocks(text) if any(map(TYPED.match, command_lines(block.text)))]
    return [block.text.splitlines()[0] for block in sessions if block.mark not in ("replay", "seen")]


def test_every_command_of_the_readme_is_there(root: Path) -> None:
    named = _named_commands((root / "README.md").read_text(encoding="utf-8"))
    assert {("plan",), ("apply",), ("guest", "list"), ("guest", "show"), ("image", "pull")} <= set(named)
    assert [" ".join(words) for words in named if not _is_there(words)] == []
    assert not _is_there(("guest", "destroy"))


def test_the_page_of_commands_leads_to_each(root: Path) -> None:
    named = _named_commands((MANUAL / f"{GENERATED}.md").read_text(encoding="utf-8"))
    assert set(named) == {words for words, _ in _leaves()}


def test_the_table_of_exit_codes_is_the_codes() -> None:
    page = (MANUAL / "exit-codes.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == sorted(EXIT_CODES)


def test_the_manual_names_what_exists() -> None:
    assert [fault for page in pages() for fault in _strange(page.stem, page.read_text(encoding="utf-8"))] == []


def test_strange_commands_flags_and_codes_are_found() -> None:
    page = (
        "`vmhost guest destroy web`, `vmhost plan --force SITE` and `--all-of-it` end with exit code 77 (exit 9)\n\n"
        "```\nsudo vmhost gest list\nvmhost lab exec x -- vmhost guest exec y -- ls --all\n```\n\n"
        "<!-- replay -->\n```console\n$ vmhost plan site.yaml\n$ echo $?\n55\n```\n"
    )
    assert _strange("page", page) == [
        "page: vmhost gest list: no such command",
        "page: vmhost guest destroy web: no such command",
        "page: vmhost plan --force SITE: no flag --force",
        "page: --all-of-it: no flag of any command",
        "page: exit code 77",
        "page: exit code 55",
    ]


def test_every_command_and_flag_has_its_place_in_the_manual() -> None:
    assert _missing({page.stem: page.read_text(encoding="utf-8") for page in pages()}) == []


def test_a_missing_command_and_a_missing_flag_are_found() -> None:
    texts = {page.stem: page.read_text(encoding="utf-8") for page in pages()}
    texts = {name: re.sub(r"vmhost recover|--discard-saved", "", text) for name, text in texts.items()}
    assert _missing(texts) == [
        "plan --discard-saved",
        "apply --discard-saved",
        "guest start --discard-saved",
        "snapshot revert --discard-saved",
        "recover",
    ]


def test_every_session_is_replayed_or_says_where_it_was_seen() -> None:
    assert {page.stem: found for page in pages() if (found := _unmarked(page.read_text(encoding="utf-8")))} == {}
    assert _unmarked("```console\n$ vmhost guest list\nall is well\n```\n") == ["$ vmhost guest list"]


def test_every_finding_of_doctor_has_its_remedy(root: Path) -> None:
    source = "".join(
        (root / "vmhost" / "ops" / f"{name}.py").read_text(encoding="utf-8")
        for name in ("doctor", "doctornet", "doctorports")
    )
    found = re.findall(r'\bFinding\(\s*"([a-z-]+)",\s*"([a-z]+)"', source)
    assert len(found) == len(re.findall(r"\bFinding\(", source)) > 10
    page = (MANUAL / "doctor.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \| `([a-z]+)` \|", page, re.MULTILINE)) == set(found)


def test_every_variable_of_the_environment_is_listed(root: Path) -> None:
    page = (MANUAL / "files.md").read_text(encoding="utf-8")
    used = {
        name
        for path in (root / "vmhost").rglob("*.py")
        for name in re.findall(r'"(VMHOST_[A-Z_]+[A-Z])"', path.read_text(encoding="utf-8"))
    }
    listed = set(re.findall(r"VMHOST_[A-Z_]+", page))
    assert {"VMHOST_FAKE_STATE", "VMHOST_DEBUG"} <= used
    assert used <= listed
    moved = {f"VMHOST_{part}_DIR" for part in ("STATE", "RUNTIME", "CONFIG", "IMAGES", "DISKS", "LOG", "BACKUPS")}
    assert listed <= used | moved


def test_every_public_name_of_python_is_explained() -> None:
    page = (MANUAL / "python.md").read_text(encoding="utf-8")
    assert [name for name in vmhost.__all__ if f"`vmhost.{name}" not in page] == []
    calls = [name for name in vars(Host) if not name.startswith("_")]
    assert [name for name in calls if f"host.{name}" not in page] == []
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {"VmhostError", "SpecError"} <= set(kinds)
    assert [name for name in kinds if not re.search(rf"\b{name}`", page)] == []


def test_every_kind_of_document_is_in_the_manual() -> None:
    root = Path(__file__).parents[2]
    told = (root / "docs" / "manual" / "output.md").read_text()
    faces = "\n".join(path.read_text() for path in (root / "vmhost" / "cli").glob("*.py"))
    kinds = set(re.findall(r'(?:emit|show)\(\s*output,\s*"([A-Za-z]+)"', faces))
    assert len(kinds) > 20
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in told] == []
