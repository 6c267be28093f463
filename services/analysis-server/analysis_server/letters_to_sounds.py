"""Guesses the phones of an English word from its letters, by the model of g2p-en.

The model is a sequence-to-sequence network that learned from CMUdict (Kyubyong Park & Jongseok Kim, 2019, Apache
licence). Only its weights are used: the package's own code looks for data on the internet when it is imported.
"""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_LETTERS = 24
"""The model was made for words, which are shorter: what it says of a longer one has little to do with the letters."""

_Floats = NDArray[np.floating[Any]]
_Weights = Mapping[str, _Floats]
_LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
_BEGIN, _END, _MOST_PHONES = 2, 3, 24
_STRESSES = "012"


def phones_of(word: str) -> list[str]:
    """Return the phones (ARPAbet without stress) of a word of a to z, of MOST_LETTERS at most; there may be none."""
    weights = _weights()
    state: _Floats = np.zeros(weights["enc_w_hh"].shape[1], np.float32)
    for letter in [*word, "</s>"]:
        state = _step(weights, "enc", _LETTERS.index(letter), state)
    phones, phone = list[str](), _BEGIN
    while len(phones) < _MOST_PHONES:
        state = _step(weights, "dec", phone, state)
        phone = int((weights["fc_w"] @ state + weights["fc_b"]).argmax())
        if phone <= _END:
            break
        phones.append(_PHONES[phone].rstrip(_STRESSES))
    return phones


def _step(weights: _Weights, side: str, entry: int, state: _Floats) -> _Floats:
    """Return the next state of a gated recurrent unit (Cho et al. 2014), in PyTorch's order of gates."""
    given = weights[f"{side}_w_ih"] @ weights[f"{side}_emb"][entry] + weights[f"{side}_b_ih"]
    kept = weights[f"{side}_w_hh"] @ state + weights[f"{side}_b_hh"]
    reset, update, new = np.split(given, 3)
    reset_kept, update_kept, new_kept = np.split(kept, 3)
    gate = _sigmoid(update + update_kept)
    candidate = np.tanh(new + _sigmoid(reset + reset_kept) * new_kept)
    following: _Floats = (1 - gate) * candidate + gate * state
    return following


def _sigmoid(values: _Floats) -> _Floats:
    shares: _Floats = 1 / (1 + np.exp(-values))
    return shares


@cache
def _weights() -> _Weights:
    package = find_spec("g2p_en")
    assert package is not None  # noqa: S101 - a dependency
    assert package.origin is not None  # noqa: S101 - it is a folder with an __init__.py
    with np.load(Path(package.origin).with_name("checkpoint20.npz"), allow_pickle=False) as kept:
        return {name: kept[name] for name in kept}


def _stressed(vowels: str) -> list[str]:
    return [vowel + stress for vowel in vowels.split() for stress in _STRESSES]


_PHONES = [
    *("<pad>", "<unk>", "<s>", "</s>"),
    *_stressed("AA AE AH AO AW AY"),
    *("B", "CH", "D", "DH"),
    *_stressed("EH ER EY"),
    *("F", "G", "HH"),
    *_stressed("IH IY"),
    *("JH", "K", "L", "M", "N", "NG"),
    *_stressed("OW OY"),
    *("P", "R", "S", "SH", "T", "TH"),
    *_stressed("UH"),
    "UW",
    *_stressed("UW"),
    *("V", "W", "Y", "Z", "ZH"),
]
"""The network's phones, in its order."""
