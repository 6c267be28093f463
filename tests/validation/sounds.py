"""The sounds of the validation: a sentence as it is, spoken otherwise, and changed."""

import subprocess
from functools import cache

import numpy as np
import parselmouth
from numpy.typing import NDArray
from parselmouth.praat import call

from tests.support.recordings import wav_header

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "I never said that she stole my money.",
    "Winter is coming, and the night is dark.",
    "You can not handle the truth about this place.",
    "Please call Stella and ask her to bring these things.",
)
VOICES = ("en-us", "en-gb", "en-us+m3", "en-us+f2")
RATE = 16_000
NORMAL_SPEED = 175  # words a minute, espeak-ng's own default

Samples = NDArray[np.int16]


@cache
def spoken(sentence: str, voice: str, tempo: float = 1.0) -> Samples:
    """This sentence by one of espeak-ng's voices, 16 kHz."""
    speed = str(round(NORMAL_SPEED * tempo))
    command = ["espeak-ng", "-v", voice, "-s", speed, "--stdout", sentence]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    sound = parselmouth.Sound(np.frombuffer(made[44:], dtype="<i2") / 32768, 22_050).resample(RATE)
    return _samples(sound.values[0])


def pitched(samples: Samples, formula: str) -> Samples:
    """The same with another pitch (PSOLA); the formula is Praat's, `self` is the pitch in Hz and `mean` its mean."""
    manipulation = call(parselmouth.Sound(samples / 32768, RATE), "To Manipulation", 0.01, 75, 600)
    tier = call(manipulation, "Extract pitch tier")
    mean = call(tier, "Get mean (points)", 0, 0)
    call(tier, "Formula", formula.replace("mean", str(mean)))
    call([manipulation, tier], "Replace pitch tier")
    return _samples(call(manipulation, "Get resynthesis (overlap-add)").values[0])


def noise(length: int) -> Samples:
    """White noise, as loud as quiet speech."""
    return np.random.default_rng(1).normal(0, 1000, length).astype(np.int16)


def as_wav(samples: Samples) -> bytes:
    """A whole file of these samples."""
    return wav_header(2 * len(samples), rate=RATE) + samples.astype("<i2").tobytes()


def _samples(values: NDArray[np.float64]) -> Samples:
    return (np.clip(values, -1, 1) * 32767).astype(np.int16)
