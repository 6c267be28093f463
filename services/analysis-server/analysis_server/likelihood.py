"""Scores how well the sound fits the phones of the text: the log-likelihood ratio of Witt & Young 2000."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from pocketsphinx import Alignment, Decoder

from analysis_server.alignment import hear, new_decoder
from analysis_server.voice import Floats

_LOG_BASE = math.log(1.0001)
_SCORE_UNIT = 1024 * _LOG_BASE  # the decoder's scores are shifted right by 10 bits
_PHONE_SEARCH = "phones"


class JudgedPhone(NamedTuple):
    """A phone (ARPAbet), its frames of 10 ms from `start` up to `end`, and its likelihood ratio.

    The ratio is a natural logarithm per frame, 0 at most.
    """

    name: str
    start: int
    end: int
    ratio: float


def judge(pcm: bytes, found: Alignment, free: Floats) -> list[list[JudgedPhone]]:
    """Return the phones of each entry of an alignment of these samples, each with its likelihood ratio.

    Goodness of pronunciation (Witt & Young 2000, *Phone-level pronunciation scoring and assessment for interactive
    language learning*, Speech Communication 30, 95-108): the log likelihood of the frames as the phone of the text,
    minus that of the same frames on the best path through any phones, divided by the number of frames.
    0 means that no phone fits better. `free` is what `free_scores` returns for the same samples.
    """
    decoder = _decoder()
    decoder.set_alignment(found)
    hear(decoder, pcm)
    entries = [
        [(phone.name, phone.start, phone.duration, phone.score) for phone in entry] for entry in _entries(decoder)
    ]
    return [
        [
            JudgedPhone(name, at, at + frames, _ratio(score, free[at : at + frames]))
            for name, at, frames, score in phones
        ]
        for phones in entries
    ]


def _entries(decoder: Decoder) -> Alignment:
    return decoder.get_alignment()


def _ratio(score: int, free: Floats) -> float:
    return min(0.0, (score - float(free.sum())) * _SCORE_UNIT / len(free))


def free_scores(pcm: bytes) -> Floats:
    """Return each frame's share of the score of the best path through any phones, in the decoder's own unit."""
    decoder = _decoder()
    decoder.activate_search(_PHONE_SEARCH)
    hear(decoder, pcm)
    scores = np.zeros(decoder.n_frames() + 1)
    for segment in decoder.seg():
        frames = segment.end_frame - segment.start_frame + 1
        scores[segment.start_frame : segment.end_frame + 1] = math.log(segment.ascore) / _LOG_BASE / frames
    return scores


@cache
def _decoder() -> Decoder:
    # Compute all senones in all frames. A frame's scores are relative to the best senone that was computed, so the
    # scores of the two searches can be compared only when both compute all.
    decoder = new_decoder(compallsen=True, beam=1e-150, pbeam=1e-150, wbeam=1e-150)
    decoder.add_allphone_file(_PHONE_SEARCH)
    return decoder
