"""What `make lint` lets pass as a licence."""

import runpy
from pathlib import Path

import pytest

is_known = runpy.run_path(str(Path(__file__).parents[3] / "docs" / "licences" / "generate.py"))["is_known"]


@pytest.mark.parametrize("told", ["MIT", "Apache-2.0 AND MIT", "MIT OR Apache-2.0", "BSD License; MIT License"])
def test_a_permissive_licence_passes(told: str) -> None:
    assert is_known("anything", told)


@pytest.mark.parametrize("told", ["", "UNKNOWN", "GPL-3.0-or-later", "MIT AND GPL-2.0-only", "MIT; Proprietary", "mit"])
def test_a_licence_that_nobody_has_judged_does_not_pass(told: str) -> None:
    assert not is_known("anything", told)


def test_what_was_judged_for_one_package_passes_there_alone_and_as_long_as_it_says_the_same() -> None:
    gpl = "GNU General Public License v3 or later (GPLv3+)"
    assert is_known("praat-parselmouth", gpl)
    assert not is_known("anything", gpl)
    assert not is_known("praat-parselmouth", "Proprietary")
