"""The pages hang together: every link leads somewhere, every decision has its parts and stands in the index."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/*.md")])


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a heading is reached by, as GitHub makes it: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("decision", sorted(DECISIONS.glob("[0-9]*.md")), ids=lambda decision: decision.stem)
def test_a_decision_has_its_four_parts_and_stands_in_the_index(decision: Path) -> None:
    title = re.escape(decision.read_text().splitlines()[0].removeprefix(f"# {decision.stem[:4]} "))
    parts = re.findall(r"^## (.*)$", decision.read_text(), re.MULTILINE)
    assert parts == ["Context", "Decision", "Consequences", "Alternatives"]
    assert re.search(
        rf"^- \[{decision.stem[:4]}\]\({decision.name}\) {title}$", (DECISIONS / "README.md").read_text(), re.MULTILINE
    )
