"""The documents hang together: no link leads nowhere, decisions are listed, the README is right about make."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _dead_links(root: Path, pages: list[Path]) -> list[str]:
    return [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]


def test_no_link_leads_nowhere(root: Path, tree: tuple[Path, ...]) -> None:
    pages = [path for path in tree if path.suffix == ".md"]
    assert root / "README.md" in pages
    assert _dead_links(root, pages) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](gone.md) [c](https://example.org/)\n", encoding="utf-8")
    assert _dead_links(tmp_path, [page]) == ["page.md: gone.md"]


def _lost_pages(index: str, pages: set[str]) -> list[str]:
    """Return the pages that the index does not lead to, and the entries that lead nowhere."""
    listed = re.findall(r"^(manual/[a-z-]+)$", index, re.MULTILINE)
    return sorted({*pages} ^ {*listed}) + sorted(entry for entry in set(listed) if listed.count(entry) > 1)


def test_the_index_leads_to_every_page_of_the_manual(root: Path) -> None:
    index = (root / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {f"manual/{page.stem}" for page in (root / "docs" / "manual").glob("*.md")}
    assert len(pages) > 15
    assert _lost_pages(index, pages) == []
    assert _lost_pages("manual/a\nmanual/a\n", {"manual/a", "manual/c"}) == ["manual/c", "manual/a"]


def test_links_have_words(root: Path, tree: tuple[Path, ...]) -> None:
    empty = [path.name for path in tree if path.suffix == ".md" and "[](" in path.read_text(encoding="utf-8")]
    assert empty == []


def test_decisions_are_numbered_and_listed(root: Path) -> None:
    folder = root / "docs" / "decisions"
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    numbers = [int(name[:4]) for name in pages]
    assert len(set(numbers)) == len(numbers) > 10
    assert LINK.findall((folder / "README.md").read_text(encoding="utf-8")) == pages
    for name in pages:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {name[:4]} ")
        assert text.count("\n") <= 60, f"{name} is longer than a page"


def test_the_targets_that_the_readme_names_are_there(root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", (root / "README.md").read_text(encoding="utf-8")))
    assert {"demo", "test"} <= named
    assert named <= targets
    assert {"setup", "demo", "test", "test-full", "check", "bench", "docs", "clean"} <= targets
