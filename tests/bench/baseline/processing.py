"""What the baseline does with an upload once it has answered: S3 by boto3 in threads, then the analysis call.

The mistakes are the original's own and are kept on purpose: they are what Sori's tests must catch.
"""

import asyncio
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import httpx

from tests.bench.baseline.settings import Settings

logger = logging.getLogger(__name__)

Job = dict[str, Any]


class Processing:
    """Jobs in this process's memory, and the background work that moves them on."""

    def __init__(self, settings: Settings) -> None:
        self.jobs: dict[str, Job] = {}
        self._settings = settings
        self._s3 = boto3.client(
            "s3",
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            region_name=settings.region,
            endpoint_url=settings.s3_endpoint_url,
        )

    def begin(self, job_id: str, token_id: str) -> None:
        """Note a job that has just been uploaded."""
        self.jobs[job_id] = {"token_id": token_id}
        self._progress(job_id, 10, "업로드 시작")

    async def run(self, job_id: str, token_id: str, file_name: str, content: bytes) -> None:
        """Store the bytes and ask for the analysis; the webhook finishes the job."""
        try:
            self._progress(job_id, 40, "S3 업로드 중...")
            s3_url = await self._store(f"audio/{job_id}_{file_name}", content)

            self._progress(job_id, 70, "분석 서버 요청 중...")
            await self._request_analysis(s3_url, token_id, job_id)

            self.jobs[job_id]["s3_url"] = s3_url
            self._progress(job_id, 90, "분석 중... 결과 대기")
        except Exception as error:
            logger.exception("background task failed")
            self.jobs[job_id].update(status="failed", message=f"처리 실패: {error}", error=str(error))

    def complete(self, job_id: str, webhook: dict[str, Any]) -> None:
        """Finish a job with what the webhook brought, whatever it says and whoever sent it."""
        job = self.jobs.setdefault(job_id, {})
        job.update(status="completed", progress=100, message="분석 완료", result=webhook.get("result"))

    def _progress(self, job_id: str, progress: int, message: str) -> None:
        self.jobs[job_id].update(status="processing", progress=progress, message=message)

    async def _store(self, key: str, content: bytes) -> str:
        def put() -> None:
            self._s3.upload_fileobj(io.BytesIO(content), self._settings.bucket, key)

        with ThreadPoolExecutor() as pool:
            await asyncio.get_running_loop().run_in_executor(pool, put)
        return f"s3://{self._settings.bucket}/{key}"

    async def _request_analysis(self, s3_url: str, token_id: str, job_id: str) -> None:
        form = {
            "s3_audio_url": s3_url,
            "video_id": token_id,
            "webhook_url": f"{self._settings.webhook_url}?job_id={job_id}",
        }
        try:
            async with httpx.AsyncClient(timeout=30.0) as client:
                response = await client.post(self._settings.target_server_url, data=form)
                response.raise_for_status()
        except Exception:
            logger.exception("analysis request failed")
