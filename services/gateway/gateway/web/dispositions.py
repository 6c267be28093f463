"""Reads the parameters of headers, above all the names in Content-Disposition, in all the ways that clients write them.

Header text has one character for each byte (latin-1), as the server and the form's parser give it.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from itertools import count
from urllib.parse import unquote_to_bytes

_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"(?=\s*(?:;|$))|[^;]*)', re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")
_BROWSER_ESCAPE = re.compile(r"%(22|0[AaDd])")
_CHARSETS = {
    "utf-8": ("utf8",),
    "utf-16": ("utf16",),
    "utf-16-le": ("utf16le",),
    "utf-16-be": ("utf16be",),
    "ascii": ("ascii", "usascii", "iso646us"),
    "latin-1": ("latin1", "iso88591", "l1"),
    "iso8859-15": ("latin9", "iso885915"),
    "cp1252": ("cp1252", "windows1252"),
    "cp949": ("cp949", "ms949", "windows949", "xwindows949", "uhc"),
    "euc-kr": ("euckr", "ksc5601", "ksc56011987", "ksx1001"),
    "shift-jis": ("shiftjis", "sjis", "xsjis"),
    "cp932": ("cp932", "ms932", "windows31j", "windows932", "mskanji"),
    "euc-jp": ("eucjp", "ujis"),
    "gb18030": ("gb18030",),
    "gbk": ("gbk", "cp936", "ms936", "windows936"),
    "gb2312": ("gb2312", "euccn", "gb231280"),
    "big5": ("big5", "big5tw"),
}
"""The character sets of names, and what they are called. Python knows more, and some of them take long to decode.

It also keeps every unknown name that it is asked for, so it is never asked for a client's.
"""
_CODECS = {alias: codec for codec, aliases in _CHARSETS.items() for alias in aliases}
_NAME_CHARACTERS = 40
_UNLABELLED = ("utf-8", "cp949")
"""What a name without a character set is written in: the second by programs on a Korean Windows, curl among them."""


def parameters(header: str) -> dict[str, str]:
    """Return a header's parameters by name in lower case, without their quotes; the first of a name counts."""
    found: dict[str, str] = {}
    for name, value in _PARAMETER.findall(header):
        found.setdefault(name.lower(), _unquoted(value.strip()))
    return found


def parameter(header: str, name: str) -> str | None:
    """Return one parameter of Content-Disposition as text, None without it.

    `name*` (RFC 8187), also in pieces (RFC 2231, section 3), is preferred to `name`. RFC 7578 forbids it in forms,
    and clients send it all the same. The plain one may have a browser's escapes (WHATWG HTML, "multipart/form-data
    encoding algorithm") or encoded words (RFC 2047).
    """
    given = parameters(header)
    extended = _extended(given, name)
    if extended is not None:
        return extended
    plain = given.get(name, _continued(given, name))
    return None if plain is None else _plain(plain)


def _unquoted(value: str) -> str:
    for quote in ('"', "'"):
        if len(value) > 1 and value[0] == value[-1] == quote:
            value = value[1:-1]
            break
    # Browsers do not escape backslashes. Whoever escapes quotes with them escapes them too.
    return re.sub(r'\\(["\\])', r"\1", value) if '\\"' in value else value


def _extended(given: Mapping[str, str], name: str) -> str | None:
    value = given.get(f"{name}*")
    if value is None and f"{name}*0*" in given:
        value = _continued(given, name)
    if value is None:
        return None
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    try:
        raw = unquote_to_bytes((encoded if quote else value).encode("latin-1"))
        return _decoded(raw, charset if quote and charset else "utf-8")
    except (LookupError, ValueError):
        return None


def _continued(given: Mapping[str, str], name: str) -> str | None:
    """Return the pieces `name*0`, `name*1` … as one; those that are not encoded are escaped if the first is."""
    pieces: list[str] = []
    escape = "%25" if f"{name}*0*" in given else "%"
    for number in count():
        key = f"{name}*{number}"
        if f"{key}*" in given:
            pieces.append(given[f"{key}*"])
        elif key in given:
            pieces.append(given[key].replace("%", escape))
        else:
            return "".join(pieces) if pieces else None
    raise AssertionError


def _plain(value: str) -> str:
    raw = value.encode("latin-1", "replace")
    for charset in _UNLABELLED:
        try:
            text = raw.decode(charset)
            break
        except UnicodeDecodeError:
            continue
    else:
        text = raw.decode("utf-8", "replace")
    text = _BROWSER_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    try:
        return _ENCODED_WORD.sub(lambda word: _word(*word.groups()), _BETWEEN_WORDS.sub("", text))
    except (LookupError, ValueError):
        return text


def _word(charset: str, encoding: str, text: str) -> str:
    raw = text.encode("ascii")
    if encoding in "bB":
        content = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    else:
        content = binascii.a2b_qp(raw, header=True)
    return _decoded(content, charset.partition("*")[0])  # a language may follow (RFC 2231, section 5)


def _decoded(content: bytes, charset: str) -> str:
    """Return the text; LookupError or ValueError when it has none in this character set."""
    alias = re.sub(r"[^a-z0-9]", "", charset[:_NAME_CHARACTERS].lower())
    return content.decode(_CODECS[alias])
