"""Writing to S3 ends, whatever the store does."""

import asyncio

import pytest

from analysis_server import storage
from analysis_server.errors import StorageError
from analysis_server.settings import Settings
from analysis_server.storage import Bucket


async def test_a_store_that_never_gives_leave_to_send_the_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    monkeypatch.setattr(storage, "WRITE_SECONDS", 0.2)
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(
        s3_bucket_name="recordings",
        s3_endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    try:
        async with asyncio.timeout(5), Bucket(settings) as store:
            with pytest.raises(StorageError):
                await store.write("references/a.analysis-1", b"small")
    finally:
        server.close()
