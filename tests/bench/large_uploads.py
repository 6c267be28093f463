"""Large recordings, 16 at once through the edge.

Two forms. WAVs of 200 MiB show how much memory an upload takes. WAVs of 10 minutes (18.3 MiB) are compared with the
same bytes put straight into the same S3 by parts, until the last one is accepted, and with the baseline, until the
last result has come (analysis in 50 ms).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from rich.console import Console
from rich.table import Table

from tests.bench import meter, programs
from tests.bench.load import Outcome, Plan
from tests.bench.peers.direct_parts import PREFIX, DirectPlan
from tests.bench.peers.relay import PREFIX as RELAY_PREFIX
from tests.bench.report import Verdict, at_least, at_most, show_reasons, spread
from tests.bench.systems import BASELINE, Systems
from tests.support.recordings import HEADER_BYTES

UPLOADS = 16
WATCHED = ("gateway", "uploader")
TEN_MINUTES_BYTES = HEADER_BYTES + 600 * 2 * 16000
MOST_MIB_ABOVE_IDLE = 64
LEAST_SHARE_OF_DIRECT = 0.85
MOST_OVER_BASELINE = 1.1
_PATIENCE_SECONDS = 600.0
_PREFIXES = (PREFIX, RELAY_PREFIX, "inbox/", "audio/")


@dataclass(frozen=True)
class LargeRun:
    """What came of one run through the edge, and the peak resident bytes of each watched service meanwhile."""

    size_bytes: int
    outcome: Outcome
    peak: dict[str, int]
    samples_per_second: float

    @property
    def speed(self) -> float:
        """MiB/s until the last upload was accepted."""
        return UPLOADS * self.size_bytes / meter.MIB / self.outcome.upload_seconds if self.outcome.job_ids else 0.0


@dataclass(frozen=True)
class LongRound:
    """Recordings of 10 minutes: through the edge, MiB/s of direct parts, and through the baseline."""

    ours: LargeRun
    direct: float
    baseline: Outcome

    @property
    def share(self) -> float:
        """Our speed until accepted over that of direct parts."""
        return self.ours.speed / self.direct

    @property
    def last_result(self) -> float:
        """Our time until the last result over the baseline's; infinite when ours brought none."""
        ours, theirs = self.ours.outcome.seconds, self.baseline.seconds
        return ours / theirs if ours and theirs else float("inf")


def idle_memory(under_measure: Systems) -> dict[str, int]:
    """Resident bytes of the watched services now; call it when they have just started."""
    parts = under_measure.parts()
    return {name: meter.resident_bytes(parts[name]) for name in WATCHED}


def large(under_measure: Systems, size_bytes: int, rounds: int, seeds: Iterator[int]) -> Iterator[LargeRun]:
    """Yield `rounds` rounds of 16 stereo WAVs through the edge; the bucket is emptied after each."""
    for _ in range(rounds):
        yield _through_the_edge(under_measure, _plan(size_bytes, next(seeds), rate=48000, channels=2))


def long(under_measure: Systems, size_bytes: int, rounds: int, seeds: Iterator[int]) -> Iterator[LongRound]:
    """Yield `rounds` rounds of 16 mono WAVs: direct parts, the edge, the baseline; the bucket is emptied after each."""
    for _ in range(rounds):
        direct = _direct(under_measure, DirectPlan(UPLOADS, size_bytes, next(seeds)))
        ours = _through_the_edge(under_measure, _plan(size_bytes, next(seeds)))
        yield LongRound(ours, direct, _through_the_baseline(under_measure, _plan(size_bytes, next(seeds))))


def show_large(console: Console, runs: Sequence[LargeRun], idle: dict[str, int]) -> list[Verdict]:
    """Speed and peak memory above idle; a verdict on each service's memory."""
    title = f"{UPLOADS} uploads of {runs[0].size_bytes / meter.MIB:.0f} MiB at once"
    table = Table("round", "accepted, MiB/s", *(f"{name} MiB: idle → peak" for name in idle), "lost", title=title)
    for number, run in enumerate(runs, 1):
        memory = [f"{idle[name] / meter.MIB:.0f} → {run.peak[name] / meter.MIB:.0f}" for name in idle]
        table.add_row(str(number), f"{run.speed:.0f}", *memory, str(len(run.outcome.lost)))
    console.print(table)
    show_reasons(console, [reason for run in runs for reason in run.outcome.lost])
    console.print(f"Memory was looked at {min(run.samples_per_second for run in runs):.0f} times a second or more.")
    clean = not any(run.outcome.lost for run in runs)
    verdicts = []
    for name, at_rest in idle.items():
        above = max(run.peak[name] for run in runs) - at_rest  # the worst, for memory is either there or not
        figure = f"{name}: peak MiB above idle, {UPLOADS} large uploads, the worst round"
        verdicts.append(at_most(figure, [above / meter.MIB], MOST_MIB_ABOVE_IDLE, clean=clean))
    return verdicts


def show_long(console: Console, found: Sequence[LongRound]) -> list[Verdict]:
    """Speed beside direct parts, and the time to the last result beside the baseline; a verdict on each."""
    size = found[0].ours.size_bytes / meter.MIB
    table = Table("", "median (spread)", title=f"{UPLOADS} uploads of {size:.1f} MiB at once")
    table.add_row("ours: accepted, MiB/s", spread([each.ours.speed for each in found]))
    table.add_row("direct parts: MiB/s", spread([each.direct for each in found]))
    table.add_row("ours: last result, s", spread([each.ours.outcome.seconds for each in found]))
    table.add_row(f"{BASELINE}: last result, s", spread([each.baseline.seconds for each in found]))
    console.print(table)
    lost = [reason for each in found for reason in each.ours.outcome.lost]
    show_reasons(console, lost)
    name = f"{UPLOADS} × {size:.1f} MiB"
    shares, results = [each.share for each in found], [each.last_result for each in found]
    return [
        at_least(f"{name}: bytes accepted per s over direct parts'", shares, LEAST_SHARE_OF_DIRECT, clean=not lost),
        at_most(f"{name}: last result over the baseline's", results, MOST_OVER_BASELINE, clean=not lost),
    ]


@contextmanager
def empty_bucket_after(settings: Mapping[str, str]) -> Iterator[None]:
    """Remove all that a measurement has stored, once its block ends."""
    try:
        yield
    finally:
        _empty(settings)


def _plan(size_bytes: int, seed: int, *, rate: int = 16000, channels: int = 1) -> Plan:
    patience = _PATIENCE_SECONDS
    return Plan("", UPLOADS, UPLOADS, seed, "wav", size_bytes, rate, channels, patience_seconds=patience)


def _direct(under_measure: Systems, plan: DirectPlan) -> float:
    settings = under_measure.stack.settings
    meter.wait_until_quiet(under_measure.parts())
    with (
        empty_bucket_after(settings),
        programs.Worker("tests.bench.peers.direct_parts", plan, settings) as writer,
    ):
        seconds = float(writer.carry_out()["seconds"])
    return plan.uploads * plan.size_bytes / meter.MIB / seconds


def _through_the_edge(under_measure: Systems, plan: Plan) -> LargeRun:
    parts = under_measure.parts()
    meter.wait_until_quiet(parts)
    watched = {name: parts[name] for name in WATCHED}
    with (
        empty_bucket_after(under_measure.stack.settings),
        programs.load_client(plan, under_measure.urls["ours"]) as client,
        meter.PeakMemory(watched) as memory,
    ):
        outcome = programs.outcome_of(client.carry_out())
        under_measure.must_be_alive()
        meter.wait_until_quiet(parts)
    return LargeRun(plan.size_bytes, outcome, memory.peak, memory.samples_per_second)


def _through_the_baseline(under_measure: Systems, plan: Plan) -> Outcome:
    meter.wait_until_quiet(under_measure.parts())
    with (
        empty_bucket_after(under_measure.stack.settings),
        programs.load_client(plan, under_measure.urls[BASELINE]) as client,
    ):
        outcome = programs.outcome_of(client.carry_out())
        under_measure.must_be_alive()
        meter.wait_until_quiet(under_measure.parts())
    return outcome


def _empty(settings: Mapping[str, str]) -> None:
    s3: Any = boto3.client(
        "s3",
        endpoint_url=settings["S3_ENDPOINT_URL"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_REGION"],
    )
    bucket = settings["S3_BUCKET_NAME"]
    for prefix in _PREFIXES:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            keys = [{"Key": item["Key"]} for item in page.get("Contents", ())]
            if keys:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
