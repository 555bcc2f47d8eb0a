"""What must not stand anywhere in the tree: unfinished work, other trackers' words, addresses and paths of one machine.

The patterns are put together from pieces, so that this file does not contain what it looks for.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ASSISTANTS = (
    *("anthro" + "pic", "cla" + "ude", "open" + "ai", "chat" + "gpt", "gp" + "t-[0-9]", "co" + "pilot", "gem" + "ini"),
    *(
        "l" + "lms?",
        "large language " + "model",
        "language " + "model",
        "artificial " + "intelligence",
        "sub" + "-?agents?",
    ),
    *("ai " + "assistant", "ai" + "-generated", "generated " + "by ai", "chat" + "bots?"),
)
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "Not" + "ImplementedError")
REGISTRIES = (
    *("py" + r"pi\.org", "python" + r"hosted\.org", "py" + r"pi\.python\.org", "npm" + r"js\.(com|org)"),
    *("crates" + r"\.io", "ruby" + r"gems\.org", "docker" + r"\.io", r"gh" + r"cr\.io", r"qu" + r"ay\.io"),
)
# A path is one of this machine's where it begins; deeper in another path it is somebody else's.
PLACES = (r"(?<![\w/.$})-])/wo" + r"rk/", r"(?<![\w/.$})-])/ro" + r"ot(?![\w.])(?!/\.ssh)")
TRACKER = (r"\biss" + r"ue #?\d+\b", r"\btas" + r"k #\d+\b")

RULES = {
    "unfinished work": re.compile("|".join(rf"\b{word}\b" for word in UNFINISHED)),
    "who typed it": re.compile("|".join(rf"\b{word}\b" for word in ASSISTANTS), re.IGNORECASE),
    "a package registry": re.compile("|".join(REGISTRIES), re.IGNORECASE),
    "a path of one machine": re.compile("|".join(PLACES)),
    "a tracker's number": re.compile("|".join(TRACKER), re.IGNORECASE),
}
FOREIGN = ("LICENSE",)  # texts that others wrote


def _findings(root: Path, paths: tuple[Path, ...]) -> list[str]:
    found = []
    for path in paths:
        name = path.relative_to(root)
        if name.as_posix() in FOREIGN or "cloud-config-schema" in name.name:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found += [
                f"{name}:{number}: {what}: {line.strip()[:90]}" for what, rule in RULES.items() if rule.search(line)
            ]
    return found


def test_the_tree_is_clean(root: Path, tree: tuple[Path, ...]) -> None:
    assert len(tree) > 20
    assert _findings(root, tree) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("# TO" + "DO: later", "unfinished work"),
        ("raise Not" + "ImplementedError", "unfinished work"),
        ("written by Cla" + "ude", "who typed it"),
        ("index-url = https://py" + "pi.org/simple", "a package registry"),
        ("cd /wo" + "rk/main", "a path of one machine"),
        ("HOME=/ro" + "ot", "a path of one machine"),
        ("see iss" + "ue 2", "a tracker's number"),
    ],
)
def test_each_rule_finds(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(f"harmless\n{line}\n", encoding="utf-8")
    assert _findings(tmp_path, (path,)) == [f"notes.md:2: {what}: {line}"]


@pytest.mark.parametrize(
    "line", ["root=/dev/ro" + "ot", "the guest agent", "/net" + "wo" + "rk/10", "$tmp/ro" + "ot.ext4"]
)
def test_good_words_pass(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(f"{line}\n", encoding="utf-8")
    assert _findings(tmp_path, (path,)) == []
