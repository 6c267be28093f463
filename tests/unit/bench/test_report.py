from pathlib import Path

import pytest

from tests.bench.report import Verdict, at_least, at_most, spread, write_markdown


def test_a_figure_is_shown_as_its_median_with_the_least_and_the_greatest() -> None:
    assert spread([1.5, 2.0, 1.25]) == "1.50 (1.25–2.00)"
    assert spread([12_345.6]) == "12,346"
    assert spread([]) == "nothing"


@pytest.mark.parametrize(("values", "met"), [([1.9, 2.0, 5.0], True), ([1.9, 1.99, 5.0], False), ([], False)])
def test_a_verdict_of_at_least_looks_at_the_median(values: list[float], met: bool) -> None:
    assert at_least("jobs/s", values, 2.0).met is met


@pytest.mark.parametrize(("values", "met"), [([0.1, 1.0, 1.1], True), ([0.1, 1.01, 1.1], False), ([], False)])
def test_a_verdict_of_at_most_looks_at_the_median(values: list[float], met: bool) -> None:
    assert at_most("CPU", values, 1.0).met is met


def test_a_figure_is_missed_when_jobs_were_lost() -> None:
    assert not at_most("CPU", [0.5], 1.0, clean=False).met
    assert "lost" in at_least("jobs/s", [3.0], 2.0, clean=False).measured


def test_the_markdown_has_every_verdict(tmp_path: Path) -> None:
    file = tmp_path / "bench.md"
    write_markdown(file, [Verdict("jobs/s", "2.10", "≥ 2", met=True), Verdict("CPU", "0.70", "≤ 0.6", met=False)])
    text = file.read_text()
    assert "| jobs/s | 2.10 | ≥ 2 | met |" in text
    assert "| CPU | 0.70 | ≤ 0.6 | **missed** |" in text
