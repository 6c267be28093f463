"""Measures one analysis on one core: a recording of 10 s with scripts, compared with a reference that was kept."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.programs import ROOT
from tests.bench.report import Verdict, at_most

SECONDS = 10.0
RUNS = 7
MOST_SECONDS = 1.5


@dataclass(frozen=True)
class AnalysisTimes:
    """Times of a warm worker, in seconds of CPU time so that other programs do not count.

    `analyses` has one entry for each analysis with the reference kept. `hard` has the same for a recording that other
    speech and unknown words make hard, per 10 s. `reference` is the time for hearing the reference once.
    """

    analyses: list[float]
    hard: list[float]
    reference: float
    score: float

    @property
    def median(self) -> float:
        """The median analysis."""
        return statistics.median(self.analyses)


def analysis_times() -> AnalysisTimes:
    """Measure in a process of its own that may use only one core."""
    command = [sys.executable, "-m", "tests.bench.analysis"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return AnalysisTimes(**json.loads(done.stdout))


def show(console: Console, times: AnalysisTimes) -> list[Verdict]:
    """The analysis server's own work on one core; the verdict on the median analysis."""
    title = f"One analysis of {SECONDS:g} s of speech: seconds of one core"
    table = Table("", "median", "fastest", "slowest", title=title)
    figures = (times.median, min(times.analyses), max(times.analyses))
    table.add_row("with scripts, the reference kept", *(f"{seconds:.2f}" for seconds in figures))
    hard = (statistics.median(times.hard), min(times.hard), max(times.hard))
    table.add_row("with other speech, unknown words and a line left out", *(f"{seconds:.2f}" for seconds in hard))
    table.add_row("hearing the reference, once", f"{times.reference:.2f}")
    console.print(table)
    figure = f"analysis of {SECONDS:g} s with scripts and reference, s of one core"
    return [at_most(figure, times.analyses, MOST_SECONDS)]


def _measure() -> AnalysisTimes:
    # Imported only here: they take time and memory that the other measurements should not pay for.
    import numpy as np  # noqa: PLC0415

    from analysis_server.analysis import analyse  # noqa: PLC0415
    from analysis_server.job import Script  # noqa: PLC0415
    from analysis_server.listening import listen  # noqa: PLC0415
    from tests.validation.sounds import RATE, SENTENCES, as_wav, spoken  # noqa: PLC0415

    sentences = SENTENCES[:4]  # between 9 and 10 s
    text = " ".join(sentences)
    scripts = [Script(number, 0.0, SECONDS, sentence) for number, sentence in enumerate(sentences, 1)]
    with tempfile.TemporaryDirectory() as folder:
        recording, actor = Path(folder, "recording.wav"), Path(folder, "actor.wav")
        for path, voice in ((recording, "en-gb"), (actor, "en-us")):
            samples = spoken(text, voice)
            path.write_bytes(as_wav(np.pad(samples, (0, max(0, int(SECONDS * RATE) - len(samples))))))
        listen(recording, scripts, 60)  # the first use of the decoders loads them, as a worker's first job does
        before = time.process_time()
        reference, _ = listen(actor, scripts, 60)
        heard = time.process_time() - before
        times = []
        for _ in range(RUNS):
            before = time.process_time()
            result = analyse(recording, scripts, reference, 60)
            times.append(time.process_time() - before)
        more = spoken(f"Well, here I go now. {' '.join(sentences[:3])} Thank you all, goodbye.", "en-gb")
        recording.write_bytes(as_wav(more))
        unknown = [replace(script, script=script.script.replace("the ", "the zxqwv ", 1)) for script in scripts]
        hard = []
        for _ in range(RUNS):
            before = time.process_time()
            analyse(recording, unknown, reference, 60)
            hard.append((time.process_time() - before) * SECONDS * RATE / len(more))
    return AnalysisTimes(times, hard, heard, result["overall_score"])


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(json.dumps(vars(_measure())))
