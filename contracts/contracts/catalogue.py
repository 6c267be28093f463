"""The catalogue: tokens, their scripts and their actors, as they come in, are kept and are found."""

import unicodedata
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_SCRIPTS = 100
"""Scripts of one token; all of them ride along with every recording of it."""
SCRIPT_CHARACTERS = 500
NAME_CHARACTERS = 200
MAX_ALIASES = 50
LARGEST_ID = 2**31 - 1
"""PostgreSQL's `integer`, which the ids come from."""
LARGEST_TIME = 360_000.0
"""Seconds; no video is longer than a hundred hours."""

Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]*$"),
]
Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=SCRIPT_CHARACTERS, pattern=r"^[^\x00]*$")
]
S3Address = Annotated[
    str,
    StringConstraints(
        max_length=1024, pattern=r"^(s3://[^/\s]+/[^\x00-\x1f\x7f]+|https://[^/\s]+/[^\s]+|[^/:\s][^:\x00-\x1f\x7f]*)$"
    ),
    Field(description="A bare key in the bucket, s3://bucket/key, or an https address"),
]
WebAddress = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^/\s]+(/[^\s]*)?$")]
Seconds = Annotated[float, Field(ge=0, le=LARGEST_TIME, allow_inf_nan=False, description="Seconds in the source video")]


class Body(BaseModel):
    """What a request or a file may hold; anything else in it is refused."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)


class TokenBody(Body):
    """A token as it is written: a clip of an actor's speech."""

    token_name: Name
    actor_name: Name = Field(description="One actor's name or alias, or several with commas between them")
    category: Name | None = None
    start_time: Seconds
    end_time: Seconds
    s3_textgrid_url: S3Address | None = Field(default=None, description="Its words and phones, a Praat TextGrid")
    s3_pitch_url: S3Address | None = Field(
        default=None, description='Its pitch, [{"time": s, "hz": number or null}, …]'
    )
    s3_bgvoice_url: S3Address | None = None
    youtube_url: WebAddress | None = None
    thumbnail_url: WebAddress | None = None
    reference_audio_url: S3Address | None = Field(
        default=None, description="The actor's own speech; set by uploading it too"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.start_time, self.end_time)
        return self


class ScriptBody(Body):
    """A script as it is written: one sentence of a token."""

    token_id: Id
    start_time: Seconds
    end_time: Seconds
    script: Sentence
    translation: Sentence | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.start_time, self.end_time)
        return self


class ActorBody(Body):
    """An actor as it is written."""

    name: Name
    aliases: list[Name] = Field(default_factory=list, max_length=MAX_ALIASES)


class Token(TokenBody):
    """A token with what the catalogue adds to it; the document in `tokens`, without what it is found by."""

    id: Id = Field(alias="_id")
    view_count: int = Field(default=0, ge=0)


class Script(ScriptBody):
    """A script with its id; the document in `scripts`."""

    id: Id = Field(alias="_id")


class Actor(ActorBody):
    """An actor with its id; the document in `actors`, without what it is found by."""

    id: Id = Field(alias="_id")


class TokenDetails(Token):
    """A token with its scripts, by start time."""

    scripts: list[Script]


def document(row: Token | Script | Actor) -> dict[str, Any]:
    """Return a row as it is kept: its fields under `_id`, and what it is found by; `revision` is the store's."""
    return {**row.model_dump(by_alias=True), **_found_by(row)}


def folded(name: str) -> str:
    """Return a name as it is compared: composed, in no case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def actor_names(actor_name: str) -> list[str]:
    """Return the folded names in a token's `actor_name`, which has commas between several."""
    return list(dict.fromkeys(name for part in actor_name.split(",") if (name := folded(part))))


def grams(text: str) -> list[str]:
    """Return what a text contains of one and of two characters: an index of these finds any part of it.

    Words would not do: Korean runs names and particles together, and a part of a name is what people type.
    """
    name = folded(text)
    return sorted({*name, *(name[at : at + 2] for at in range(len(name) - 1))})


def sought(text: str) -> list[str]:
    """Return which of the grams every text has that contains this one."""
    name = folded(text)
    return [name] if len(name) == 1 else sorted({name[at : at + 2] for at in range(len(name) - 1)})


def _found_by(row: Token | Script | Actor) -> dict[str, Any]:
    if isinstance(row, Token):
        return {
            "actors": actor_names(row.actor_name),
            "names": [folded(row.token_name), folded(row.actor_name)],
            "grams": sorted({*grams(row.token_name), *grams(row.actor_name)}),
        }
    if isinstance(row, Actor):
        names = list(dict.fromkeys([folded(row.name), *map(folded, row.aliases)]))
        return {"names": names, "name_key": names[0], "grams": sorted({gram for name in names for gram in grams(name)})}
    return {}


def _check_order(start_time: float, end_time: float) -> None:
    if start_time >= end_time:
        raise ValueError("end_time must be greater than start_time")
