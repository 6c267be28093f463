"""The analysis server's measures, on signals whose pitch, level and rhythm are known."""

import json
from collections.abc import Iterator

import numpy as np
import parselmouth
import pytest

from analysis_server import analysis, measures
from analysis_server.audio import SAMPLE_RATE, Samples
from analysis_server.measures import Tracks


def seconds(length: float) -> np.ndarray:
    return np.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE


def tone(hz: float, length: float, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * seconds(length))


def track(signal: np.ndarray, block: int = 4096) -> Tracks:
    samples = signal.astype(np.float32)
    return measures.track(samples[start : start + block] for start in range(0, len(samples), block))


def voiced_pitch(tracks: Tracks) -> np.ndarray:
    return tracks.pitch_hz[tracks.voiced()]


@pytest.mark.parametrize("hz", [90.0, 220.0, 440.0])
def test_a_tone_has_its_own_pitch_from_end_to_end(hz: float) -> None:
    tracks = track(tone(hz, 3))
    assert np.abs(voiced_pitch(tracks) - hz).max() < 2
    assert measures.voiced_share(tracks) == pytest.approx(1, abs=0.03)


def test_a_full_scale_sine_has_91_db_re_20_micropascal() -> None:
    assert measures.mean_db(track(tone(220, 2, amplitude=1.0)).intensity_db) == pytest.approx(90.97, abs=0.1)


def test_silence_has_no_voice_no_level_and_no_syllables() -> None:
    tracks = track(np.zeros(5 * SAMPLE_RATE))
    assert measures.voiced_share(tracks) == 0
    assert np.isnan(tracks.intensity_db).all()
    assert measures.syllables(tracks) == 0


def test_noise_has_a_level_but_no_voice() -> None:
    tracks = track(0.1 * np.random.default_rng(1).standard_normal(5 * SAMPLE_RATE))
    assert measures.voiced_share(tracks) == 0
    assert measures.syllables(tracks) == 0
    assert measures.mean_db(tracks.intensity_db) == pytest.approx(74, abs=0.5)


def test_half_a_tone_is_half_voiced() -> None:
    assert measures.voiced_share(track(np.concatenate([tone(150, 2), np.zeros(2 * SAMPLE_RATE)]))) == pytest.approx(
        0.5, abs=0.02
    )


def test_each_swell_of_a_voice_is_one_syllable() -> None:
    swelling = tone(150, 10) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * seconds(10)))
    assert measures.syllables(track(swelling)) == 40


def test_ripples_under_2_db_are_no_syllables() -> None:
    rippling = tone(150, 10) * (1 + 0.1 * np.sin(2 * np.pi * 4 * seconds(10)))  # 1.7 dB from dip to peak
    assert measures.syllables(track(rippling)) == 1


def test_a_murmur_far_below_the_voice_is_neither_voiced_nor_a_syllable_even_in_another_window() -> None:
    murmur = tone(100, 70, amplitude=0.005)  # 40 dB down, and past the first minute there is nothing louder beside it
    tracks = track(np.concatenate([tone(150, 10), murmur]))
    assert measures.voiced_share(tracks) == pytest.approx(10 / 80, abs=0.01)
    assert measures.syllables(tracks) == 1


def test_windows_leave_no_seam() -> None:
    time = seconds(130)
    voice = 0.3 * np.sin(2 * np.pi * (150 * time + 30 * np.sin(time)))
    whole = parselmouth.Sound(voice, SAMPLE_RATE).to_pitch_ac(time_step=0.01, pitch_floor=75, pitch_ceiling=600)
    expected = np.interp((np.arange(13_000) + 0.5) * 0.01, whole.xs(), whole.selected_array["frequency"])
    tracks = track(voice)
    inner = slice(5, -5)
    assert len(tracks.pitch_hz) == 13_000
    assert np.abs(tracks.pitch_hz[inner] - expected[inner]).max() < 0.5


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 799, 800, 801, 2079, 2080, 2081, 8000])
def test_a_recording_of_any_shortness_is_measured_or_not_but_never_invented(samples: int) -> None:
    tracks = track(tone(220, 1)[:samples])
    assert len(tracks.pitch_hz) == samples // 160
    share = measures.voiced_share(tracks)
    assert (share is None) == (samples < 800)
    assert np.isnan(tracks.intensity_db).all() == (samples < 2080)
    assert all(abs(hz - 220) < 2 for hz in voiced_pitch(tracks))


@pytest.mark.parametrize("frames", [0, 1, 1999, 2000, 2001, 360_000])
def test_contours_have_at_most_2000_points_that_span_the_recording(frames: int) -> None:
    tracks = Tracks(np.full(frames, 123.4), np.full(frames, 65.4))
    for contour, value in ((measures.pitch_contour(tracks), 123.4), (measures.intensity_contour(tracks), 65.4)):
        assert len(contour.values) == len(contour.times_s) <= 2000
        assert contour.values == pytest.approx(value)
        assert (np.diff(contour.times_s) > 0).all()
        assert len(contour.times_s) >= min(frames, 1000)
        if frames:
            point_s = frames / 100 / len(contour.times_s)
            assert frames / 100 - point_s < contour.times_s[-1] < frames / 100


def test_a_point_of_a_contour_is_its_frames_median_or_none_when_most_are_unvoiced() -> None:
    nan = float("nan")
    pitch = np.array([100.0, 300.0, 101.0, nan, nan, 200.0] * 1000)  # three frames a point
    assert measures.pitch_contour(Tracks(pitch, pitch)).values[:2].tolist() == pytest.approx([101.0, nan], nan_ok=True)


def test_the_largest_possible_contours_of_an_hour_stay_under_200_kb_as_json() -> None:
    hour = Tracks(np.full(359_990, 599.9), np.full(359_990, -99.9))
    contours = [
        analysis.contour_json(measures.pitch_contour(hour), "values_hz"),
        analysis.contour_json(measures.intensity_contour(hour), "values_db"),
    ]
    assert 50_000 < len(json.dumps(contours, allow_nan=False)) < 150_000


def test_a_long_recording_is_held_a_window_at_a_time() -> None:
    handed_out = 0

    def blocks() -> Iterator[Samples]:
        nonlocal handed_out
        for _ in range(300):
            handed_out += 1
            yield np.zeros(SAMPLE_RATE, dtype=np.float32)

    held = measures.windows(blocks())
    assert len(next(held).samples) <= 61 * SAMPLE_RATE
    assert handed_out <= 62
    assert [len(window.samples) <= 61 * SAMPLE_RATE for window in held] == [True] * 4
