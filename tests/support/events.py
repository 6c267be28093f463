"""Events of one made-up job, as the services would have published them."""

import hashlib
from datetime import timedelta

from contracts import events
from contracts.events import Event
from contracts.failures import FailureCode
from tests.support.sori import RECORDING

TRACEPARENT = "00-11111111111111111111111111111111-2222222222222222-01"
AUDIO = events.AudioInfo(
    duration_seconds=0.4, sample_rate=16000, channels=1, codec="pcm_s16le", container="wav", waveform=[9, 99]
)
RESULT: events.JsonObject = {"score": 87.5}


class Story:
    """What happens to one job."""

    def __init__(self, job_id: str, token_id: str = "a-token", recording: bytes = RECORDING) -> None:
        self.job_id = job_id
        self._token_id = token_id
        self._sha256 = hashlib.sha256(recording).hexdigest()
        self._size_bytes = len(recording)
        self._s3_url = f"s3://sori/audio/{job_id}.wav"

    def upload_received(self, *, age: timedelta = timedelta(0)) -> events.UploadReceived:
        """The recording has been in the inbox for `age`."""
        data = events.UploadReceivedData(
            token_id=self._token_id,
            inbox_key=f"inbox/{self.job_id}",
            size_bytes=self._size_bytes,
            sha256=self._sha256,
        )
        event = events.UploadReceived.new(self.job_id, data, source="gateway", traceparent=TRACEPARENT)
        return event.model_copy(update={"time": events.now() - age})

    def audio_stored(self) -> events.AudioStored:
        """The recording was verified and stored."""
        data = events.AudioStoredData(
            token_id=self._token_id,
            s3_url=self._s3_url,
            sha256=self._sha256,
            size_bytes=self._size_bytes,
            audio=AUDIO,
        )
        return events.AudioStored.new(self.job_id, data, source="uploader", traceparent=TRACEPARENT)

    def analysis_requested(self, attempt: int = 1) -> events.AnalysisRequested:
        """The analysis server accepted the recording."""
        data = events.AnalysisRequestedData(
            token_id=self._token_id,
            s3_url=self._s3_url,
            attempt=attempt,
            deadline=events.now() + timedelta(minutes=10),
        )
        return events.AnalysisRequested.new(
            self.job_id, data, source="analyzer-bridge", traceparent=TRACEPARENT, step=str(attempt)
        )

    def analysis_completed(self) -> events.AnalysisCompleted:
        """There is a result."""
        data = events.AnalysisCompletedData(token_id=self._token_id, s3_url=self._s3_url, result=RESULT, cached=False)
        return events.AnalysisCompleted.new(self.job_id, data, source="analyzer-bridge", traceparent=TRACEPARENT)

    def analysis_failed(self) -> events.AnalysisFailed:
        """There will be no result."""
        data = events.AnalysisFailedData(
            token_id=self._token_id, s3_url=self._s3_url, code=FailureCode.ANALYSIS_TIMED_OUT
        )
        return events.AnalysisFailed.new(self.job_id, data, source="analyzer-bridge", traceparent=TRACEPARENT)

    def upload_rejected(self) -> events.UploadRejected:
        """The recording cannot be used."""
        data = events.UploadRejectedData(token_id=self._token_id, code=FailureCode.NOT_AUDIO)
        return events.UploadRejected.new(self.job_id, data, source="uploader", traceparent=TRACEPARENT)

    def analysis_delayed(self) -> events.AnalysisDelayed:
        """The analysis server cannot be asked yet."""
        data = events.AnalysisDelayedData(token_id=self._token_id, s3_url=self._s3_url)
        return events.AnalysisDelayed.new(self.job_id, data, source="analyzer-bridge", traceparent=TRACEPARENT)

    def analysis_webhook_received(self) -> events.AnalysisWebhookReceived:
        """The analysis server called back."""
        data = events.AnalysisWebhookReceivedData(attempt=1, body={"status": "success", "result": RESULT})
        return events.AnalysisWebhookReceived.new(self.job_id, data, source="gateway", traceparent=TRACEPARENT)

    def analysis_webhook_ignored(self) -> events.AnalysisWebhookIgnored:
        """The analysis server called back after the analysis had ended."""
        data = events.AnalysisWebhookIgnoredData(attempt=1, said="completed")
        return events.AnalysisWebhookIgnored.new(self.job_id, data, source="analyzer-bridge", traceparent=TRACEPARENT)

    def analysis_progressed(self, percent: int = 40) -> events.AnalysisProgressed:
        """The analysis server said how far it is."""
        data = events.AnalysisProgressedData(token_id="1", attempt=1, percent=percent)
        about = {"source": "analyzer-bridge", "traceparent": TRACEPARENT, "step": f"1/{percent}"}
        return events.AnalysisProgressed.new(self.job_id, data, **about)

    def job_cancelled(self) -> events.JobCancelled:
        """The user has cancelled the job."""
        data = events.JobCancelledData(token_id=self._token_id)
        return events.JobCancelled.new(self.job_id, data, source="gateway", traceparent=TRACEPARENT)

    def job_expired(self) -> events.JobExpired:
        """Nothing has moved the job for too long."""
        data = events.JobExpiredData(token_id=self._token_id, code=FailureCode.NO_PROGRESS)
        return events.JobExpired.new(self.job_id, data, source="notifier", traceparent=TRACEPARENT)

    def job_purged(self) -> events.JobPurged:
        """All that is kept about the job is to be deleted."""
        data = events.JobPurgedData(token_id=self._token_id)
        return events.JobPurged.new(self.job_id, data, source="gateway", traceparent=TRACEPARENT)

    def audio_removed(self) -> events.AudioRemoved:
        """Nothing of the recording is left."""
        data = events.AudioRemovedData(token_id=self._token_id)
        return events.AudioRemoved.new(self.job_id, data, source="uploader", traceparent=TRACEPARENT)

    def analysis_removed(self) -> events.AnalysisRemoved:
        """Nothing of the analysis is left but its mark."""
        data = events.AnalysisRemovedData(token_id=self._token_id)
        return events.AnalysisRemoved.new(self.job_id, data, source="analyzer-bridge", traceparent=TRACEPARENT)

    def job_resumed(self, held: events.JobHeld) -> events.JobResumed:
        """The message that was set aside was put back."""
        data = events.JobResumedData(held_id=held.id, queue=held.data.queue)
        return events.JobResumed.new(self.job_id, data, source="sorictl", traceparent=TRACEPARENT, step=held.id)

    def job_held(self, queue: str, about: Event) -> events.JobHeld:
        """A message about the job was set aside."""
        data = events.JobHeldData(queue=queue, event_id=about.id, event_type=about.type, reason="a test")
        return events.JobHeld.new(self.job_id, data, source="notifier", traceparent=TRACEPARENT, step=about.id)
