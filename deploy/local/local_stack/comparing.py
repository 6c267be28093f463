"""Shows how a recording compares with the actor's: the scores, the words, both melodies and the summary."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from local_stack.sparklines import is_number, is_series, sparkline

GOOD, FAIR = 80, 60
BAR_WIDTH = 20
LINE_WIDTH = 30
MOST_WORDS = 100
VOICES = ("recording", "reference")
TWICE = ("words", "phones")
"""Fields that the words of a comparison already show, so they are not shown again."""


def split(result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a result into its comparison, as far as that is well formed, and the rest."""
    comparison = {name: result[name] for name, fits in _PARTS.items() if name in result and fits(result[name])}
    twice = TWICE if "word_analysis" in comparison else ()
    return comparison, {name: value for name, value in result.items() if name not in comparison and name not in twice}


def render(comparison: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yields the parts of a comparison that are present, each with an empty line after it."""
    for name, show in _SHOWN.items():
        if name in comparison:
            yield from show(comparison[name])
            yield Text()


def _overall(score: float) -> Iterator[RenderableType]:
    yield Text.assemble(("Overall score  ", "bold"), _score(score), (" of 100", "dim"))


def _scores(scores: Mapping[str, Any]) -> Iterator[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    for name, one in scores.items():
        method = one.get("method")
        shown = Text(method if isinstance(method, str) else "", style="dim")
        grid.add_row(Text(name, style="bold"), _score(one["score"]), _bar(one["score"]), shown)
    yield grid


def _words(words: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    for script, group in groupby(words[:MOST_WORDS], lambda word: str(word.get("script") or "")):
        yield Text(script, style="italic")
        table = Table("word", "score", "", "in the recording", "in the reference", header_style="dim", box=None)
        for word in group:
            score = word.get("score")
            spoken = _times(word.get("recording")) or ("not found" if word.get("matched") is False else "–")
            shown = (_score(score), _bar(score)) if is_number(score) else (Text("–", style="dim"), Text())
            table.add_row(Text(str(word["word"])), *shown, spoken, _times(word.get("reference")) or "–")
        yield table
    if len(words) > MOST_WORDS:
        yield Text(f"and {len(words) - MOST_WORDS} more words", style="dim")


def _melodies(pitch: Mapping[str, Any]) -> Iterator[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    for voice in VOICES:
        semitones = pitch.get(f"{voice}_semitones")
        if is_series(semitones):
            known = [value for value in semitones if value is not None]
            name = Text(f"pitch of the {voice}, semitones", style="bold")
            line = Text(sparkline(semitones, LINE_WIDTH), style="cyan")
            grid.add_row(name, line, Text(f"{min(known):+.0f} … {max(known):+.0f}", style="dim"))
    yield grid


def _summary(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    for text in summary.values():
        yield Text(text)


def _score(score: float) -> Text:
    style = "green" if score >= GOOD else "yellow" if score >= FAIR else "red"
    return Text(f"{score:3.0f}", style=f"bold {style}")


def _bar(score: float) -> Text:
    full = round(max(0.0, min(100.0, score)) / 100 * BAR_WIDTH)
    return Text("█" * full + "░" * (BAR_WIDTH - full), style="dim")


def _times(span: object) -> str:
    if not isinstance(span, Mapping) or not (is_number(span.get("start_s")) and is_number(span.get("end_s"))):
        return ""
    return f"{span['start_s']:.2f} … {span['end_s']:.2f} s"


def _is_scores(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(one, Mapping) and is_number(one.get("score")) for one in value.values()
    )


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping) and "word" in one for one in value)


def _is_melodies(value: object) -> bool:
    return isinstance(value, Mapping) and any(
        is_series(value.get(f"{v}_semitones")) for v in ("recording", "reference")
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


_PARTS: Mapping[str, Callable[[object], bool]] = {
    "overall_score": is_number,
    "scores": _is_scores,
    "word_analysis": _is_words,
    "pitch": _is_melodies,
    "summary": _is_texts,
}
_SHOWN: Mapping[str, Callable[[Any], Iterator[RenderableType]]] = {
    "overall_score": _overall,
    "summary": _summary,
    "scores": _scores,
    "word_analysis": _words,
    "pitch": _melodies,
}
