"""Forced alignment, on sentences spoken by espeak-ng."""

import io
import itertools

import av
import numpy as np
import pytest

from analysis_server import alignment
from analysis_server.alignment import Alignment, NotAlignedError, align
from tests.support.recordings import speech

SENTENCE = "The quick brown fox jumps over the lazy dog."


def pcm(text: str, voice: str = "en-us") -> bytes:
    resampler = av.AudioResampler("s16", "mono", 16_000)
    with av.open(io.BytesIO(speech(text, voice=voice)), "r") as container:
        frames = itertools.chain.from_iterable(resampler.resample(frame) for frame in container.decode(audio=0))
        return b"".join(frame.to_ndarray().tobytes() for frame in frames)


def refusal(recording: bytes, script: str) -> str:
    with pytest.raises(NotAlignedError) as refused:
        align(recording, script)
    assert refused.value.text.endswith((".", "…")) or ":" in refused.value.text
    return refused.value.code


@pytest.fixture(scope="module")
def fox() -> Alignment:
    return align(pcm(SENTENCE), SENTENCE)


def test_the_words_of_the_script_come_in_order_and_inside_the_recording(fox: Alignment) -> None:
    duration = len(pcm(SENTENCE)) / 32_000
    assert [word.name for word in fox.words] == ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
    times = [time for word in fox.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= duration
    assert all(word.end_s > word.start_s for word in fox.words)


def test_words_are_where_the_sound_is(fox: Alignment) -> None:
    samples = np.frombuffer(pcm(SENTENCE), dtype="<i2").astype(float)
    loud = np.flatnonzero(np.abs(samples) > 500) / 16_000
    assert fox.words[0].start_s == pytest.approx(loud[0], abs=0.1)
    assert fox.words[-1].end_s == pytest.approx(loud[-1], abs=0.25)


def test_phones_fill_their_words(fox: Alignment) -> None:
    by_word = [[p for p in fox.phones if w.start_s <= p.start_s < w.end_s] for w in fox.words]
    assert [phone.name for phone in by_word[3]] == ["F", "AA", "K", "S"]
    for word, phones in zip(fox.words, by_word, strict=True):
        assert phones[0].start_s == word.start_s
        assert phones[-1].end_s == word.end_s
    assert sum(len(phones) for phones in by_word) == len(fox.phones)


def test_a_pause_belongs_to_no_word() -> None:
    words = align(pcm("One two. [[_::::::_::::::]] Three four."), "One two. Three four.").words
    assert words[2].start_s - words[1].end_s > 0.2


def test_apostrophes_of_either_kind_and_hyphens_are_understood() -> None:
    words = align(pcm("I don't know that well-known actor."), "I don’t know that well-known actor!").words
    assert [word.name for word in words] == ["I", "don't", "know", "that", "well", "known", "actor"]


def test_words_outside_the_dictionary_are_named() -> None:
    with pytest.raises(NotAlignedError, match="words_not_in_dictionary") as refused:
        align(pcm(SENTENCE), "The quick brown zxqwv jumps over the blorptik dog")
    assert refused.value.text.endswith(": zxqwv, blorptik")


def test_the_decoders_own_symbols_in_a_script_are_words_like_any_other() -> None:
    assert refusal(pcm(SENTENCE), "<sil> [NOISE] the(2)") in {"words_not_in_dictionary", "alignment_failed"}


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("안녕하세요 여러분", "script_language_unsupported"),
        ("… — !!", "script_has_no_words"),
        ("word " * 700, "script_too_long"),
    ],
)
def test_a_script_that_cannot_be_aligned_says_why(script: str, code: str) -> None:
    assert refusal(pcm(SENTENCE), script) == code


@pytest.mark.parametrize("seconds", [0, 0.005, 0.05, 0.5, 2])
def test_a_script_is_not_found_in_silence(seconds: float) -> None:
    assert refusal(bytes(int(seconds * 16_000) * 2), SENTENCE) == "alignment_failed"


def test_a_script_far_longer_than_the_recording_is_not_found_in_it() -> None:
    assert refusal(pcm("Hello."), " ".join([SENTENCE] * 20)) == "alignment_failed"


def test_a_recording_that_would_take_too_much_memory_is_left_alone() -> None:
    assert refusal(bytes(int(alignment.MAX_SECONDS * 32_000) + 2), SENTENCE) == "recording_too_long_to_align"
