"""The baseline's HTTP surface: upload, result, progress and webhook, as its README lists them."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import BackgroundTasks, FastAPI, File, HTTPException, Request, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse

from tests.bench.baseline.processing import Job, Processing
from tests.bench.baseline.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Connect the baseline; its jobs live as long as the application object."""
    app = FastAPI(title="FastAPI 오디오 분석 서비스")
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    processing = Processing(settings)
    _add_upload(app, processing)
    _add_result(app, processing)
    _add_progress(app, processing)
    _add_webhook(app, processing)
    return app


def _add_upload(app: FastAPI, processing: Processing) -> None:
    @app.post("/tokens/{token_id}/upload-audio", status_code=202)
    async def upload_audio(
        token_id: str, background_tasks: BackgroundTasks, file: Annotated[UploadFile, File()]
    ) -> dict[str, str]:
        try:
            content = await file.read()
            job_id = str(uuid.uuid4())
            processing.begin(job_id, token_id)
            background_tasks.add_task(processing.run, job_id, token_id, file.filename or "audio", content)
        except Exception as error:
            raise HTTPException(status_code=500, detail=str(error)) from error
        message = "업로드 완료, 백그라운드에서 처리됩니다."
        return {"message": message, "job_id": job_id, "status": "processing"}


def _add_result(app: FastAPI, processing: Processing) -> None:
    @app.get("/tokens/analysis-result/{job_id}")
    async def analysis_result(job_id: str) -> Job:
        if job_id not in processing.jobs:
            raise HTTPException(status_code=404, detail="작업을 찾을 수 없습니다.")
        return processing.jobs[job_id]


def _add_progress(app: FastAPI, processing: Processing) -> None:
    async def events(job_id: str) -> AsyncIterator[str]:
        while True:
            job = processing.jobs.get(job_id, {"status": "not_found", "message": "작업을 찾을 수 없습니다."})
            yield f"data: {json.dumps(job, ensure_ascii=False)}\n\n"
            if job["status"] != "processing":
                return
            await asyncio.sleep(1)

    @app.get("/tokens/analysis-progress/{job_id}")
    async def analysis_progress(job_id: str) -> StreamingResponse:
        return StreamingResponse(events(job_id), media_type="text/event-stream")


def _add_webhook(app: FastAPI, processing: Processing) -> None:
    @app.post("/tokens/webhook/analysis-complete")
    @app.post("/webhook/analysis-complete", include_in_schema=False)
    async def analysis_complete(job_id: str, request: Request) -> dict[str, Any]:
        processing.complete(job_id, await request.json())
        return {"received": True, "job_id": job_id}
