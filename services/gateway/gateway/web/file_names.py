"""Names of files that are given out: what a Content-Disposition says of one (RFC 6266)."""

import unicodedata
from urllib.parse import quote

_NO_NAME = frozenset('/\\:*?"<>|%')
"""What some file system gives a meaning to, and the percent sign, of which clients differ (RFC 6266, appendix D)."""


def inline(name: str, extension: str | None) -> str:
    """Return the Content-Disposition of a file that is shown, or saved by this name with this extension.

    Users choose such names. They must play no tricks on who saves a file: no other extension, no folders, nothing
    invisible, nothing that turns the direction of the text.
    """
    shown = (" " if character in _NO_NAME else character for character in unicodedata.normalize("NFC", name))
    safe = "".join(character for character in shown if unicodedata.category(character)[0] != "C").strip(" .") or "audio"
    if extension is not None and not safe.lower().endswith(f".{extension}"):
        safe = f"{safe}.{extension}"
    plain = "".join(character if character.isascii() else "_" for character in safe)
    extended = "" if plain == safe else f"; filename*=UTF-8''{quote(safe, safe='')}"
    return f'inline; filename="{plain}"{extended}'
