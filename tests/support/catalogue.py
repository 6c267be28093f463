"""The catalogue as a front end changes it, for tests that need a token of their own."""

from typing import Any

import httpx

from tests.support.sori import RECORDING, Sori

Row = dict[str, Any]


async def new_row(sori: Sori, kind: str, **fields: object) -> Row:
    """Add a token, script or actor; returns the row as it was answered."""
    answer = await sori.client.post(f"{sori.url}/{kind}/", json=fields)
    assert answer.status_code == 201, answer.text
    row: Row = answer.json()
    return row


async def new_catalogue_token(sori: Sori, **fields: object) -> Row:
    """Add a token whose clip goes from 61.5 s to 66 s."""
    clip = {"token_name": "Truth", "actor_name": "Jack Nicholson", "start_time": 61.5, "end_time": 66.0}
    return await new_row(sori, "tokens", **{**clip, **fields})


async def new_script(sori: Sori, token_id: int, start_time: float, end_time: float, script: str) -> Row:
    """Add a sentence to a token."""
    times = {"start_time": start_time, "end_time": end_time}
    return await new_row(sori, "scripts", token_id=token_id, script=script, **times)


async def put_reference(
    sori: Sori, token_id: object, audio: bytes = RECORDING, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Upload a token's reference audio; returns the answer, whatever it is."""
    url = f"{sori.url}/tokens/{token_id}/reference-audio"
    return await sori.client.put(url, files={"file": ("actor.wav", audio, "audio/wav")}, headers=headers)
