"""What the bridge tells about an analysis: the same event, by its id, each time."""

from datetime import UTC, datetime
from typing import Any, Literal

from analyzer_bridge import SERVICE
from analyzer_bridge.analysis import Analysis, AnalysisStatus, Outcome
from contracts import events
from contracts.events import (
    AnalysisCompleted,
    AnalysisCompletedData,
    AnalysisDelayed,
    AnalysisDelayedData,
    AnalysisFailed,
    AnalysisFailedData,
    AnalysisProgressed,
    AnalysisProgressedData,
    AnalysisRemoved,
    AnalysisRemovedData,
    AnalysisRequested,
    AnalysisRequestedData,
    AnalysisWebhookIgnored,
    AnalysisWebhookIgnoredData,
    AnalysisWebhookReceived,
    AudioStored,
    Event,
    JobPurged,
    JobPurgedData,
)
from contracts.failures import FailureCode


def stands(analysis: Analysis) -> Event | None:
    """Return the event that tells where an analysis stands: the same one, by its id, each time."""
    if analysis.outcome is not None:
        return told(analysis)
    return _delayed(analysis) if analysis.waiting else requested(analysis)


def _delayed(analysis: Analysis) -> Event:
    data = AnalysisDelayedData(**_recording(analysis))
    return AnalysisDelayed.new(analysis.job_id, data, source=SERVICE, traceparent=analysis.traceparent)


def _recording(analysis: Analysis) -> dict[str, Any]:
    """Return what every event about an analysis says of its recording."""
    return {
        "token_id": analysis.token_id or "",
        "metadata": analysis.metadata,
        "owner": analysis.owner,
        "s3_url": analysis.s3_url or "",
    }


def requested(analysis: Analysis) -> Event:
    """Return the event that tells that an analysis was asked for; one without a deadline has not been."""
    data = AnalysisRequestedData(
        **_recording(analysis),
        attempt=analysis.attempt,
        deadline=analysis.deadline or datetime.now(UTC),
    )
    return AnalysisRequested.new(
        analysis.job_id, data, source=SERVICE, traceparent=analysis.traceparent, step=str(analysis.attempt)
    )


def progressed(analysis: Analysis, percent: int) -> Event:
    """Return the event that tells how far an analysis is."""
    data = AnalysisProgressedData(**_recording(analysis), attempt=analysis.attempt, percent=percent)
    step = f"{analysis.attempt}/{percent}"
    return AnalysisProgressed.new(analysis.job_id, data, source=SERVICE, traceparent=analysis.traceparent, step=step)


def told(analysis: Analysis) -> Event | None:
    """Return the event that tells how an analysis ended; None when it was stopped, or has not ended."""
    outcome = analysis.outcome
    if outcome is None or outcome.stopped:
        return None
    if outcome.result_json is None:
        failed = AnalysisFailedData(**_recording(analysis), code=outcome.code or FailureCode.ANALYSIS_FAILED)
        return AnalysisFailed.new(analysis.job_id, failed, source=SERVICE, traceparent=analysis.traceparent)
    completed = AnalysisCompletedData(
        **_recording(analysis),
        result=events.from_json(outcome.result_json),
        cached=outcome.cached,
    )
    return AnalysisCompleted.new(analysis.job_id, completed, source=SERVICE, traceparent=analysis.traceparent)


def ignored(event: AnalysisWebhookReceived, outcome: Outcome) -> Event:
    """Return the event that tells of a webhook call that changed nothing, and of the outcome that it meant."""
    said: Literal["completed", "failed"] = "completed" if outcome.status == AnalysisStatus.COMPLETED else "failed"
    data = AnalysisWebhookIgnoredData(attempt=event.data.attempt, said=said)
    return AnalysisWebhookIgnored.new(event.subject, data, source=SERVICE, traceparent=event.traceparent, step=event.id)


def purged(event: AudioStored | JobPurged) -> Event:
    """Return job.purged, to be told once more."""
    data = JobPurgedData(**event.data.passed_on())
    return JobPurged.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)


def removed(event: JobPurged) -> Event:
    """Return the event that tells that nothing is left of a purged job's analysis."""
    data = AnalysisRemovedData(**event.data.passed_on())
    return AnalysisRemoved.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)
