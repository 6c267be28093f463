"""The routes of a token's reference audio."""

from dataclasses import dataclass, replace
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request, Response

from chassis.children import LateError
from contracts import api, problems
from contracts.audio import UNKNOWN_TYPE
from contracts.catalogue import Token
from decoding.errors import RejectedError
from gateway.audio import ArrivingFile, StoredAudio
from gateway.availability import Availability
from gateway.catalogue.requests import ExpectedRevisions, TokenNumber, tagged
from gateway.catalogue.rows import ChangedError, Expected, RevisedRow, TokenNotFoundError, entity_tag, row_id
from gateway.references.references import References, UploadTooLateError
from gateway.storage import Bucket
from gateway.web.audio import IfRange, Range, Reader, audio_answers, audio_head, audio_response
from gateway.web.bodies import arriving_file, file_body
from gateway.web.callers import CallerIs
from gateway.web.client import client_of
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.web.quotas import UPLOAD_BYTES, UPLOADS, ClientQuotas
from gateway.web.slots import Slots

log = structlog.get_logger()

_PATH = "/tokens/{token_id}/reference-audio"

TokenId = Annotated[str, Path(json_schema_extra={"type": "integer"})]


@dataclass(frozen=True)
class ReferenceParts:
    """What these routes work with."""

    references: References
    bucket: Bucket
    availability: Availability
    uploads: Slots
    readers: Slots
    quotas: ClientQuotas
    max_bytes: int


Parts = Annotated[ReferenceParts, given(ReferenceParts)]
router = APIRouter(tags=["tokens"])


@router.put(
    _PATH,
    response_model_exclude_none=True,
    summary="Upload a token's reference audio",
    responses=api.problem_answers(
        problems.FORM_MALFORMED,
        problems.TOKEN_NOT_FOUND,
        problems.UPLOAD_TOO_SLOW,
        problems.PRECONDITION_FAILED,
        problems.UPLOAD_TOO_LARGE,
        problems.ENCODING_UNSUPPORTED,
        problems.FILE_MISSING,
        problems.TOO_MANY_FILES,
        problems.FILE_EMPTY,
        *problems.REFERENCE_REJECTIONS.values(),
        problems.TOO_MANY_REQUESTS,
        problems.TOO_MANY_UPLOADS,
        problems.TOO_MANY_BYTES,
        problems.TOO_MANY_AT_ONCE,
        problems.BUSY,
        problems.UNAVAILABLE,
    ),
    openapi_extra=file_body("The actor's own speech, from `start_time` to `end_time`"),
)
async def replace_reference_audio(
    *,
    parts: Parts,
    caller: CallerIs,
    request: Request,
    response: Response,
    token_id: TokenId,
    expected: ExpectedRevisions,
) -> Token:
    """Take the actor's speech in and decode it; recordings that come from then on are compared with it."""
    parts.quotas.check(request, UPLOAD_BYTES)
    with parts.quotas.held(request, UPLOADS), parts.uploads.taken(client_of(request, caller), close=True):
        file = parts.quotas.counted(request, arriving_file(request, parts.max_bytes, reads_metadata=False))
        await parts.availability.require("S3", "MongoDB")
        token = await _replaced(parts.references, token_id, file, expected)
    parts.availability.seen("S3", "MongoDB")
    log.info("reference replaced", token_id=token.row.id, url=token.row.reference_audio_url)
    return tagged(response, token)


@router.get(
    _PATH,
    response_class=Response,
    summary="Read a token's reference audio",
    responses=audio_answers(problems.TOKEN_NOT_FOUND, problems.REFERENCE_NOT_FOUND),
)
async def reference_audio(
    *,
    parts: Parts,
    caller: CallerIs,
    request: Request,
    token_id: TokenNumber,
    range: Range = None,  # noqa: A002 - the header's name
    if_range: IfRange = None,
) -> Response:
    """Return the audio as it was sent, or a range of it; HEAD says how large it is."""
    audio = await _found(parts, token_id)
    reader = Reader(parts.readers, client_of(request, caller), problems.REFERENCE_NOT_FOUND)
    return await audio_response(parts.bucket, reader, audio, asked=range, if_range=if_range, name=_name(token_id))


@router.head(_PATH, include_in_schema=False)
async def reference_audio_head(parts: Parts, token_id: TokenNumber) -> Response:
    """Return the headers of the whole."""
    return audio_head(await _found(parts, token_id), name=_name(token_id))


async def _replaced(references: References, token_id: str, file: ArrivingFile, expected: Expected) -> RevisedRow[Token]:
    number = row_id(token_id)
    # These errors can be raised before the body is read, so they end the connection.
    try:
        if number is None:
            raise TokenNotFoundError  # noqa: TRY301 - no token has such an id, so it is answered like an unknown one
        return await references.replace(number, file, expected)
    except TokenNotFoundError:
        raise ProblemError(problems.TOKEN_NOT_FOUND, close=True) from None
    except ChangedError as error:
        headers = {"ETag": entity_tag(error.revision)}
        raise ProblemError(problems.PRECONDITION_FAILED, close=True, headers=headers) from None
    except RejectedError as error:
        raise ProblemError(problems.REFERENCE_REJECTIONS[error.reason]) from None
    except LateError:
        raise ProblemError(problems.BUSY) from None
    except UploadTooLateError:
        raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True) from None


async def _found(parts: ReferenceParts, token_id: int) -> StoredAudio:
    await parts.availability.require("S3", "MongoDB")
    key = await parts.references.key_of(token_id)
    audio = None if key is None else await parts.bucket.find(key)
    if audio is None:
        raise ProblemError(problems.REFERENCE_NOT_FOUND)
    if audio.content_type == UNKNOWN_TYPE:  # the store has forgotten it, and the key has no extension
        return replace(audio, content_type=await parts.references.media_type(audio.key) or UNKNOWN_TYPE)
    return audio


def _name(token_id: int) -> str:
    return f"reference-{token_id}"
