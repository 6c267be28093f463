"""Which words are found in a recording and when, on sentences spoken by espeak-ng."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from analysis_server import alignment, letters_to_sounds
from analysis_server.alignment import read
from analysis_server.job import Script
from analysis_server.listening import MAX_SECONDS, listen
from analysis_server.voice import Voice
from tests.support.recordings import speech, wav_header

SENTENCE = "The quick brown fox jumps over the lazy dog."


def heard(folder: Path, content: bytes, *scripts: str) -> tuple[Voice, list[str]]:
    path = folder / "recording"
    path.write_bytes(content)
    voice, warnings = listen(path, [Script(at, 0.0, 1.0, text) for at, text in enumerate(scripts, 1)], 3600)
    assert all(warning["text"].endswith((".", "…")) or ":" in warning["text"] for warning in warnings)
    return voice, [warning["code"] for warning in warnings]


def names(voice: Voice) -> list[str]:
    return [word.name for word in voice.words or ()]


@pytest.fixture(scope="module")
def fox(tmp_path_factory: pytest.TempPathFactory) -> Voice:
    voice, warnings = heard(tmp_path_factory.mktemp("fox"), speech(SENTENCE, voice="en-us"), SENTENCE)
    assert warnings == []
    return voice


def test_the_words_of_the_script_come_in_order_and_inside_the_recording(fox: Voice) -> None:
    assert names(fox) == ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
    assert fox.places == tuple(range(9))
    times = [time for word in fox.words or () for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= fox.duration_s
    assert all(word.end_s > word.start_s for word in fox.words or ())


def test_words_are_where_the_sound_is(fox: Voice) -> None:
    samples = np.frombuffer(speech(SENTENCE, voice="en-us")[44:], dtype="<i2").astype(float)
    loud = np.flatnonzero(np.abs(samples) > 500) / (len(samples) / fox.duration_s)
    assert fox.words is not None
    assert fox.words[0].start_s == pytest.approx(loud[0], abs=0.1)
    assert fox.words[-1].end_s == pytest.approx(loud[-1], abs=0.25)


def test_phones_fill_their_words(fox: Voice) -> None:
    assert fox.words is not None
    assert fox.phones is not None
    by_word = [[p for p in fox.phones if w.start_s <= p.start_s < w.end_s] for w in fox.words]
    assert [phone.name for phone in by_word[3]] == ["F", "AA", "K", "S"]
    for word, phones in zip(fox.words, by_word, strict=True):
        assert phones[0].start_s == word.start_s
        assert phones[-1].end_s == word.end_s
    assert sum(len(phones) for phones in by_word) == len(fox.phones)


def test_every_frame_of_a_word_has_a_likelihood_ratio_of_zero_at_most_and_no_other_frame(fox: Voice) -> None:
    assert fox.likelihood_ratio is not None
    within = np.zeros(len(fox.likelihood_ratio), dtype=bool)
    for phone in fox.phones or ():
        within[round(phone.start_s * 100) : round(phone.end_s * 100)] = True
    assert (~np.isnan(fox.likelihood_ratio) == within).all()
    assert -5 < np.nanmean(fox.likelihood_ratio) < 0
    assert np.nanmax(fox.likelihood_ratio) <= 0


def test_the_same_recording_is_heard_the_same_whatever_was_heard_before(fox: Voice, tmp_path: Path) -> None:
    heard(tmp_path, speech("Ask not what your country can do for you.", voice="en-gb"), SENTENCE)
    heard(tmp_path, wav_header(6400, rate=16_000) + bytes(6400), SENTENCE)
    again, _ = heard(tmp_path, speech(SENTENCE, voice="en-us"), SENTENCE)
    assert again.to_bytes() == fox.to_bytes()


def test_a_pause_belongs_to_no_word(tmp_path: Path) -> None:
    voice, _ = heard(
        tmp_path, speech("One two. [[_::::::_::::::]] Three four.", voice="en-us"), "One two.", "Three four."
    )
    assert voice.words is not None
    assert voice.words[2].start_s - voice.words[1].end_s > 0.2


def test_apostrophes_of_either_kind_and_hyphens_are_understood(tmp_path: Path) -> None:
    content = speech("I don't know that well-known actor.", voice="en-us")
    voice, _ = heard(tmp_path, content, "I don’t know that well-known actor!")
    assert names(voice) == ["I", "don't", "know", "that", "well", "known", "actor"]


def test_words_that_were_left_out_are_missing_and_the_others_are_found(tmp_path: Path) -> None:
    voice, warnings = heard(tmp_path, speech("The quick fox jumps over the dog.", voice="en-us"), SENTENCE)
    assert warnings == []
    assert voice.places == (0, 1, 3, 4, 5, 6, 8)


def test_a_word_that_was_replaced_by_another_is_not_found(tmp_path: Path) -> None:
    voice, _ = heard(tmp_path, speech("The quick green fox jumps over the lazy cat.", voice="en-us"), SENTENCE)
    assert {"fox", "jumps", "over", "lazy"} <= set(names(voice))
    assert {"brown", "dog"}.isdisjoint(names(voice))


def test_a_recording_that_ends_early_has_the_words_up_to_there(tmp_path: Path) -> None:
    voice, _ = heard(tmp_path, speech("I never said that.", voice="en-us"), "I never said that she stole my money.")
    assert names(voice)[:4] == ["I", "never", "said", "that"]
    assert len(names(voice)) <= 5


def test_more_than_the_script_may_be_said(tmp_path: Path) -> None:
    content = speech(f"Well, er, listen to me: {SENTENCE}", voice="en-us")
    voice, _ = heard(tmp_path, content, SENTENCE)
    assert names(voice)[-8:] == ["quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]


@pytest.mark.parametrize("voice", ["en-us", "en-gb", "en-us+f2"])
@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("He was born in 1984.", "1984"),
        ("My friend Zorblax lives in the forest.", "Zorblax"),
        ("Was that Zorblax's idea?", "Zorblax's"),
        ("I saw 50% of them run.", "50%"),
        ("Come at 10:30 or call me.", "10:30"),
        ("It was -5°C in the morning.", "-5°C"),
        ("Come on 12/25/2023 or call me.", "12/25/2023"),
        ("That was the 2nd time.", "2nd"),
        ("The F.B.I. came to the house.", "F.B.I."),
        ("We bought chicken from KFC again.", "KFC"),
    ],
)
def test_numbers_and_words_that_no_dictionary_has_are_found(script: str, word: str, voice: str, tmp_path: Path) -> None:
    found, warnings = heard(tmp_path, speech(script, voice=voice), script)
    assert warnings == []
    assert found.unheard == frozenset()
    assert word in names(found)
    assert found.words is not None
    one = found.words[names(found).index(word)]
    within = [phone for phone in found.phones or () if one.start_s <= phone.start_s < one.end_s]
    assert within[0].start_s == one.start_s
    assert within[-1].end_s == one.end_s


@pytest.mark.parametrize(
    ("said", "script", "missing"),
    [
        ("He was born in London.", "He was born in 1984 in London.", "1984"),
        ("My friend lives in the forest.", "My friend Zorblax lives in the forest.", "Zorblax"),
    ],
)
def test_a_number_or_a_name_that_was_not_said_is_missing(said: str, script: str, missing: str, tmp_path: Path) -> None:
    voice, warnings = heard(tmp_path, speech(said, voice="en-us"), script)
    assert warnings == []
    assert missing not in names(voice)
    assert {"He", "friend"} & set(names(voice))


def test_words_in_other_letters_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(speech("The quick yorkie fox jumps over the lazy dog.", voice="en-us"))
    voice, warnings = listen(path, [Script(1, 0.0, 1.0, "The quick 소리 fox jumps over the lazy dog.")], 3600)
    assert [warning["code"] for warning in warnings] == ["words_not_in_dictionary"]
    assert warnings[0]["text"].endswith(": 소리")
    assert voice.unheard == {2}
    assert names(voice)[-6:] == ["fox", "jumps", "over", "the", "lazy", "dog"]


def test_a_script_without_unknown_words_needs_no_model() -> None:
    letters_to_sounds._weights.cache_clear()
    read("The quick brown fox was born in 1984.")
    assert letters_to_sounds._weights.cache_info().currsize == 0
    read("Zorblax was here.")
    assert letters_to_sounds._weights.cache_info().currsize == 1


def test_the_decoders_own_symbols_in_a_script_are_words_like_any_other(tmp_path: Path) -> None:
    voice, warnings = heard(tmp_path, speech(SENTENCE, voice="en-us"), "<sil> [NOISE] the(2)")
    assert set(warnings) <= {"script_does_not_match"}
    assert set(names(voice)) <= {"sil", "NOISE", "the", "2"}


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("안녕하세요 여러분", "script_language_unsupported"),
        ("안녕하세요, John!", "script_language_unsupported"),
        ("Menneisyys hämärtyy metsänreunan takana iltaisin hiljaisuudessa.", "script_language_unsupported"),
        ("… — !!", "script_has_no_words"),
        ("word " * 700, "script_too_long"),
    ],
)
def test_a_script_that_cannot_be_aligned_says_why(script: str, code: str, tmp_path: Path) -> None:
    voice, warnings = heard(tmp_path, speech(SENTENCE, voice="en-us"), script)
    assert warnings == [code]
    assert voice.words is None
    assert voice.mfcc is not None


@pytest.mark.parametrize("seconds", [0.005, 0.05, 0.5, 2])
def test_a_script_is_not_found_in_silence(seconds: float, tmp_path: Path) -> None:
    size = int(seconds * 16_000) * 2
    voice, warnings = heard(tmp_path, wav_header(size, rate=16_000) + bytes(size), SENTENCE)
    assert set(warnings) <= {"alignment_failed", "script_does_not_match"}
    assert voice.words == ()


def test_another_sentence_is_not_taken_for_the_script(tmp_path: Path) -> None:
    for said, script in itertools.pairwise([SENTENCE, "Winter is coming.", "May the force be with you.", SENTENCE]):
        voice, warnings = heard(tmp_path, speech(said, voice="en-us"), script)
        assert warnings[0] in ("script_does_not_match", "alignment_failed")
        assert len(voice.words or ()) <= 3


def test_a_recording_that_would_take_too_much_memory_is_left_alone(tmp_path: Path) -> None:
    size = int(MAX_SECONDS * 32_000) + 32_000
    voice, warnings = heard(tmp_path, wav_header(size, rate=16_000) + bytes(size), SENTENCE)
    assert warnings == ["recording_too_long_to_align"]
    assert voice.words is None
    assert voice.mfcc is None


def test_what_was_added_for_earlier_texts_goes_when_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_MOST_ADDED", 2)
    for number in range(3):
        decoder = alignment._decoder_with(alignment._WIDE, {f"said:{number}": ["AH", "AA"]})
        assert decoder.lookup_word(f"said:{number}") == "AH"
    assert decoder.lookup_word("said:0") is None
