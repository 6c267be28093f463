"""What is audio: the containers that a recording or a reference may have, and how each is stored and served."""

from typing import NamedTuple

UNKNOWN_TYPE = "application/octet-stream"


class Container(NamedTuple):
    """A kind of file. `name` is FFmpeg's for its demuxer, and what `AudioInfo.container` says."""

    name: str
    extension: str
    media_type: str


CONTAINERS: tuple[Container, ...] = (
    Container("wav", "wav", "audio/wav"),
    Container("w64", "w64", "audio/x-w64"),
    Container("aiff", "aiff", "audio/aiff"),
    Container("au", "au", "audio/basic"),
    Container("caf", "caf", "audio/x-caf"),
    Container("flac", "flac", "audio/flac"),
    Container("mp3", "mp3", "audio/mpeg"),
    Container("aac", "aac", "audio/aac"),
    Container("ogg", "ogg", "audio/ogg"),
    Container("mov", "m4a", "audio/mp4"),
    Container("matroska", "webm", "audio/webm"),
    Container("asf", "wma", "audio/x-ms-wma"),
    Container("amr", "amr", "audio/amr"),
)
"""The only containers that are opened. None follows addresses in the file, as playlists and concatenations do."""

_EXTENSIONS = {container.media_type: container.extension for container in CONTAINERS}
_MEDIA_TYPES = {container.extension: container.media_type for container in CONTAINERS}
_BY_NAME = {container.name: container for container in CONTAINERS}

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 384_000
"""In Hz."""
MAX_CHANNELS = 8


def container(name: str) -> Container:
    """Return the container that `AudioInfo.container` names; one of its own kind for a name of a newer version."""
    return _BY_NAME.get(name, Container(name, "bin", UNKNOWN_TYPE))


def media_type(key: str) -> str | None:
    """Return the media type of audio that is kept under this key, by its extension; None for no extension of ours."""
    return _MEDIA_TYPES.get(key.rpartition(".")[2])


def extension(media_type: str) -> str | None:
    """Return the extension of files of this media type; None for one that is not ours."""
    return _EXTENSIONS.get(media_type)
