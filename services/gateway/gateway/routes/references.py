"""The routes of a token's reference audio."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request, Response

from contracts import api, problems
from contracts.catalogue import Token
from gateway.availability import Availability
from gateway.catalogue import ChangedError, Expected, Kept, TokenNotFoundError, entity_tag, row_id
from gateway.errors import ProblemError
from gateway.forms import FileForm
from gateway.references import References, UploadTooLateError
from gateway.routes.audio import Kind, add_routes
from gateway.routes.catalogue import ExpectedRevisions, TokenNumber, tagged
from gateway.routes.places import Places
from gateway.routes.uploads import file_body, file_form
from gateway.settings import Settings
from gateway.storage import Storage
from gateway.submissions import StoredAudio

log = structlog.get_logger()

_PATH = "/tokens/{token_id}/reference-audio"

TokenId = Annotated[str, Path(json_schema_extra={"type": "integer"})]


def reference_routes(
    settings: Settings,
    references: References,
    storage: Storage,
    *,
    back_ends: Availability,
    uploads: Places,
    readers: Places,
) -> APIRouter:
    """Return the routes that take reference audio in and give it out; recordings take the same places."""
    router = APIRouter(tags=["tokens"])

    async def replaced(token_id: str, form: FileForm, expected: Expected) -> Kept[Token]:
        number = row_id(token_id)
        # Each of these may be known before the body is read.
        try:
            if number is None:
                raise TokenNotFoundError  # noqa: TRY301 - as for an id that no token has
            return await references.replace(number, form, expected)
        except TokenNotFoundError:
            raise ProblemError(problems.TOKEN_NOT_FOUND, close=True) from None
        except ChangedError as error:
            headers = {"ETag": entity_tag(error.revision)}
            raise ProblemError(problems.PRECONDITION_FAILED, close=True, headers=headers) from None
        except UploadTooLateError:
            raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True) from None

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
            problems.FILE_MISSING,
            problems.TOO_MANY_FILES,
            problems.FILE_EMPTY,
            problems.BUSY,
            problems.UNAVAILABLE,
        ),
        openapi_extra=file_body("The actor's own speech, from `start_time` to `end_time`"),
    )
    async def replace_reference_audio(
        request: Request, response: Response, token_id: TokenId, expected: ExpectedRevisions
    ) -> Token:
        """Take the actor's speech in while it arrives; recordings that come from then on are compared with it."""
        with uploads.taken(close=True):
            form = file_form(request, settings.max_upload_bytes)
            await back_ends.require("S3", "MongoDB")
            kept = await replaced(token_id, form, expected)
        back_ends.seen("S3", "MongoDB")
        log.info("reference replaced", token_id=kept.row.id, url=kept.row.reference_audio_url)
        return tagged(response, kept)

    async def found(token_id: TokenNumber) -> StoredAudio:
        await back_ends.require("S3", "MongoDB")
        key = await references.key_of(token_id)
        audio = None if key is None else await storage.find(key)
        if audio is None:
            raise ProblemError(problems.REFERENCE_NOT_FOUND)
        return audio

    kind = Kind(
        "reference_audio", _PATH, "a token's reference audio", problems.TOKEN_NOT_FOUND, problems.REFERENCE_NOT_FOUND
    )
    add_routes(router, kind, found, storage, readers)
    return router
