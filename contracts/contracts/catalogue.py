"""The catalogue: tokens, their scripts and their actors, as they come in, are kept and are found."""

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from contracts.addresses import CatalogueAddresses
from contracts.names import is_plain

MAX_SCRIPTS = 100
"""Scripts of one token; all of them ride along with every recording of it."""
SCRIPT_CHARACTERS = 500
NAME_CHARACTERS = 200
MAX_ALIASES = 50
LARGEST_ID = 2**31 - 1
"""PostgreSQL's `integer`, which the ids come from."""
LARGEST_COUNTED_ID = 2_000_000_000
"""New ids go on from the largest imported one up to here: a row at the end of the range leaves room for others."""
LARGEST_TIME = 360_000.0
"""Seconds; no video is longer than a hundred hours."""


def _without_hidden(text: str) -> str:
    if not is_plain(text):
        raise PydanticCustomError("hidden_characters", "it has characters that control or hide text")
    return text


Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
RowId = Annotated[Id, Field(validation_alias=AliasChoices("id", "_id"), examples=[1])]
"""An id as the API has it, or as a document has it."""
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]*$"),
    AfterValidator(_without_hidden),
]
Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=SCRIPT_CHARACTERS, pattern=r"^[^\x00]*$")
]
_NOT_IN_URL = r"\s\x00-\x20\x7f<>\"`\\"
S3Address = Annotated[
    str,
    StringConstraints(
        max_length=1024,
        pattern=rf"^(s3://[^/\s]+/[^\x00-\x1f\x7f]+|https://[^/{_NOT_IN_URL}]+/[^{_NOT_IN_URL}]+|[^/:\s][^:\x00-\x1f\x7f]*)$",
    ),
    AfterValidator(_without_hidden),
    Field(
        description=(
            "A bare key in the bucket, s3://bucket/key, or an https address; in the bucket only what is under "
            "`references/` or CATALOGUE_PREFIX"
        )
    ),
]
WebAddress = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=rf"^https?://[^/?#{_NOT_IN_URL}]+([/?#][^{_NOT_IN_URL}]*)?$"),
    AfterValidator(_without_hidden),
]
"""Pages show it as a link: it has nothing that could end an attribute or begin a tag (RFC 3986, appendix C)."""
Seconds = Annotated[float, Field(ge=0, le=LARGEST_TIME, allow_inf_nan=False, description="Seconds in the source video")]


S3_FIELDS = ("s3_textgrid_url", "s3_pitch_url", "s3_bgvoice_url", "reference_audio_url")
"""The fields of a token that are S3 addresses."""


class Body(BaseModel):
    """What a request or a file may hold; anything else in it is refused, and so is `false` or `"1"` for a number.

    Rows that are kept are not validated again: they may be older than a rule.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


def _in_order(end_time: float, info: ValidationInfo) -> float:
    if end_time <= info.data.get("start_time", 0.0):
        raise PydanticCustomError("time_order", "end_time must be greater than start_time")
    return end_time


class TokenBody(Body):
    """A token as it is written: a clip of an actor's speech."""

    token_name: Name = Field(examples=["신에게는 아직 열두 척의 배가 있사옵니다"])
    actor_name: Name = Field(
        description="One actor's name or alias, or several with commas between them", examples=["최민식"]
    )
    category: Name | None = Field(default=None, examples=["사극"])
    start_time: Seconds = Field(examples=[61.5])
    end_time: Seconds = Field(examples=[66.0])
    s3_textgrid_url: S3Address | None = Field(default=None, description="Its words and phones, a Praat TextGrid")
    s3_pitch_url: S3Address | None = Field(
        default=None, description='Its pitch, [{"time": s, "hz": number or null}, …]'
    )
    s3_bgvoice_url: S3Address | None = None
    youtube_url: WebAddress | None = Field(default=None, examples=["https://www.youtube.com/watch?v=c0ffee"])
    thumbnail_url: WebAddress | None = None
    reference_audio_url: S3Address | None = Field(
        default=None, description="The actor's own speech; set by uploading it too"
    )

    _check_order = field_validator("end_time")(_in_order)

    def wrong_addresses(self, addresses: CatalogueAddresses) -> list[str]:
        """Return the names of the fields whose S3 address the catalogue may not have."""
        given = {name: getattr(self, name) for name in S3_FIELDS}
        return [name for name, written in given.items() if written and addresses.allowed(written) is None]


class ScriptBody(Body):
    """A script as it is written: one sentence of a token."""

    token_id: Id = Field(examples=[1])
    start_time: Seconds = Field(examples=[61.5])
    end_time: Seconds = Field(examples=[66.0])
    script: Sentence = Field(examples=["Ask not what your country can do for you."])
    translation: Sentence | None = Field(
        default=None, examples=["조국이 당신을 위해 무엇을 할 수 있는지 묻지 마십시오."]
    )

    _check_order = field_validator("end_time")(_in_order)


class ActorBody(Body):
    """An actor as it is written."""

    name: Name = Field(examples=["최민식"])
    aliases: list[Name] = Field(default_factory=list, max_length=MAX_ALIASES, examples=[["Choi Min-sik"]])


class Token(TokenBody):
    """A token with what the catalogue adds to it; the document in `tokens`, without what it is found by."""

    id: RowId
    view_count: int = Field(default=0, ge=0)


class Script(ScriptBody):
    """A script with its id; the document in `scripts`."""

    id: RowId


class Actor(ActorBody):
    """An actor with its id; the document in `actors`, without what it is found by."""

    id: RowId


class TokenDetails(Token):
    """A token with its scripts, by start time."""

    scripts: list[Script]


class Views(BaseModel):
    """How often a token was viewed."""

    id: Id
    view_count: int = Field(ge=1)


@dataclass(frozen=True)
class Index:
    """An index of one of the collections; 1 is ascending, -1 descending."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    unique: bool = False


_BY_ID = ("_id", 1)
_POPULAR = (("view_count", -1), ("_id", -1))
INDEXES = (
    Index("tokens", "popular", _POPULAR),
    *(Index("tokens", field, ((field, 1), _BY_ID)) for field in ("category", "actors", "grams")),
    *(Index("tokens", f"{field}_popular", ((field, 1), *_POPULAR)) for field in ("category", "actors", "grams")),
    Index("tokens", "reference", (("reference_audio_url", 1),)),
    Index("scripts", "token", (("token_id", 1), ("start_time", 1), _BY_ID)),
    Index("actors", "name", (("name_key", 1),), unique=True),
    *(Index("actors", field, ((field, 1), _BY_ID)) for field in ("names", "grams")),
)
"""What serves every question: each filter in each order, so that a page is read from an index and nothing is sorted."""


def document(row: Token | Script | Actor) -> dict[str, Any]:
    """Return a row as it is kept: its fields under `_id`, and what it is found by; `revision` is the store's."""
    return {"_id": row.id, **row.model_dump(exclude={"id"}), **_found_by(row)}


def folded(name: str) -> str:
    """Return a name as it is compared: composed, in no case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def actor_names(actor_name: str) -> list[str]:
    """Return a token's actors, folded: what stands between commas, and the whole, for a name may have a comma."""
    return list(dict.fromkeys(name for part in (*actor_name.split(","), actor_name) if (name := folded(part))))


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
