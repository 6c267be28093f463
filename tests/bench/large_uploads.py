"""Large recordings: eight at once through the edge, compared with the same bytes put straight into the same S3."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3

from tests.bench import meter, programs
from tests.bench.direct_parts import PREFIX, DirectPlan
from tests.bench.load import Outcome, Plan
from tests.bench.systems import Systems

UPLOADS = 8
WATCHED = ("gateway", "uploader")
_PATIENCE_SECONDS = 300.0
_PREFIXES = (PREFIX, "inbox/", "audio/")


@dataclass(frozen=True)
class LargeRun:
    """One round: MiB/s until the last upload was answered, MiB/s of direct parts, peak resident bytes."""

    ours: float
    direct: float
    peak: dict[str, int]
    samples_per_second: float
    outcome: Outcome

    @property
    def ratio(self) -> float:
        """Our throughput over that of direct parts."""
        return self.ours / self.direct


def idle_memory(under_measure: Systems) -> dict[str, int]:
    """Resident bytes of the watched services now; call it when they have just started."""
    parts = under_measure.parts()
    return {name: meter.resident_bytes(parts[name]) for name in WATCHED}


def large_uploads(under_measure: Systems, size_bytes: int, rounds: int, seeds: Iterator[int]) -> Iterator[LargeRun]:
    """Yield `rounds` rounds, each first straight into S3, then through the edge; clean up after each upload."""
    for _ in range(rounds):
        with _empty_bucket_after(under_measure.stack.settings):
            direct = _direct(under_measure, DirectPlan(UPLOADS, size_bytes, next(seeds)))
        with _empty_bucket_after(under_measure.stack.settings):
            yield _through_the_edge(under_measure, size_bytes, next(seeds), direct)


def _direct(under_measure: Systems, plan: DirectPlan) -> float:
    meter.wait_until_quiet(under_measure.parts())
    with programs.direct_writer(plan, under_measure.stack.settings) as writer:
        seconds = float(writer.carry_out()["seconds"])
    return plan.uploads * plan.size_bytes / meter.MIB / seconds


def _through_the_edge(under_measure: Systems, size_bytes: int, seed: int, direct: float) -> LargeRun:
    plan = Plan(
        url=under_measure.stack.url,
        jobs=UPLOADS,
        at_once=UPLOADS,
        size_bytes=size_bytes,
        seed=seed,
        patience_seconds=_PATIENCE_SECONDS,
    )
    parts = under_measure.parts()
    meter.wait_until_quiet(parts)
    watched = {name: parts[name] for name in WATCHED}
    with programs.load_client(plan) as client, meter.PeakMemory(watched) as memory:
        outcome = programs.outcome_of(client.carry_out())
        under_measure.must_be_alive()
        meter.wait_until_quiet(parts)
    mib = UPLOADS * size_bytes / meter.MIB
    speed = mib / outcome.upload_seconds if outcome.upload_seconds else 0.0
    return LargeRun(speed, direct, memory.peak, memory.samples_per_second, outcome)


@contextmanager
def _empty_bucket_after(settings: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    finally:
        _empty(settings)


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
