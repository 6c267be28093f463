"""Each sentence by each voice as a reference, and how every kind of recording scores against it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from analysis_server.comparison import Comparison, compare
from analysis_server.job import Script
from analysis_server.listening import listen
from analysis_server.voice import Voice
from tests.validation.sounds import SENTENCES, VOICES, Samples, as_wav, noise, pitched, spoken

Pair = tuple[str, str]  # a sentence and the voice that speaks the reference


class Kind(NamedTuple):
    """A kind of recording: a column of the table."""

    title: str
    recording: Callable[[str, str], Samples]


KINDS = {
    "itself": Kind("itself", spoken),
    "other_voice": Kind("another voice", lambda sentence, voice: spoken(sentence, _next(VOICES, voice))),
    "higher": Kind("3 semitones higher", lambda sentence, voice: pitched(spoken(sentence, voice), "self*2^(3/12)")),
    "slow": Kind("at 0.7 of the speed", lambda sentence, voice: spoken(sentence, voice, 0.7)),
    "fast": Kind("at 1.4 of the speed", lambda sentence, voice: spoken(sentence, voice, 1.4)),
    "monotone": Kind("monotone", lambda sentence, voice: pitched(spoken(sentence, voice), "mean")),
    "inverted": Kind("pitch upside down", lambda sentence, voice: pitched(spoken(sentence, voice), "mean*mean/self")),
    "introduced": Kind(
        "another voice, after an introduction",
        lambda sentence, voice: spoken(f"Okay, here I go now. {sentence}", _next(VOICES, voice)),
    ),
    "half": Kind("its first half", lambda sentence, voice: _half(spoken(sentence, voice))),
    "other_sentence": Kind(
        "another sentence, same voice", lambda sentence, voice: spoken(_next(SENTENCES, sentence), voice)
    ),
    "noise": Kind("noise", lambda sentence, voice: noise(len(spoken(sentence, voice)))),
    "silence": Kind("silence", lambda sentence, voice: spoken(sentence, voice) * 0),
}


@dataclass(frozen=True)
class Row:
    """A pair, and the comparison of each kind of recording with its reference."""

    sentence: str
    voice: str
    of: dict[str, Comparison]

    def overall(self, kind: str) -> float:
        """The overall score."""
        overall = self.of[kind].overall
        assert overall is not None, f"{kind} has no score"
        return overall

    def score(self, kind: str, name: str) -> float:
        """One of the scores, 0 when there is none."""
        scores = self.of[kind].scores
        return scores[name].score if name in scores else 0.0


def rows() -> Iterator[Row]:
    """All pairs."""
    for sentence in SENTENCES:
        for voice in VOICES:
            yield Row(sentence, voice, {name: _compared(sentence, voice, kind) for name, kind in KINDS.items()})


def table(all_rows: list[Row]) -> str:
    """The overall scores, as the README has them."""
    titles = ["reference", *(kind.title for kind in KINDS.values())]
    lines = [titles, ["---"] * len(titles)]
    lines += [[_reference(row), *(f"{row.overall(kind):.0f}" for kind in KINDS)] for row in all_rows]
    lowest = [f"{min(row.overall(kind) for row in all_rows):.0f}" for kind in KINDS]
    highest = [f"{max(row.overall(kind) for row in all_rows):.0f}" for kind in KINDS]
    lines += [["lowest", *lowest], ["highest", *highest]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _reference(row: Row) -> str:
    return f"{' '.join(row.sentence.split()[:3])} …, {row.voice}"


def _compared(sentence: str, voice: str, kind: Kind) -> Comparison:
    reference = _heard(as_wav(spoken(sentence, voice)), sentence)
    return compare(_heard(as_wav(kind.recording(sentence, voice)), sentence), reference, _scripts(sentence))


@cache
def _heard(content: bytes, sentence: str) -> Voice:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return listen(Path(file.name), _scripts(sentence), 60)[0]


def _scripts(sentence: str) -> list[Script]:
    return [Script(1, 0.0, 3.0, sentence)]


def _half(samples: Samples) -> Samples:
    return samples[: len(samples) // 2]


def _next(among: tuple[str, ...], one: str) -> str:
    return among[(among.index(one) + 1) % len(among)]
