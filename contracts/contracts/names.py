"""Which characters a name may have: token ids, names in the catalogue, names of files.

A name is shown to people beside others, so it must not hide anything, nor turn what stands around it.
"""

import re
import unicodedata

_NEVER = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Controls; format characters, which turn the direction of text (U+202E) or have no width (U+200B); lone surrogates;
separators of lines and paragraphs. Unicode 15, section 4.5.
"""
_BLANK = set("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters of other categories that show nothing: fillers of Hangul and Braille, vowels and joiners of no shape."""
_EMOJI = "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
_JOINED = re.compile(rf"(?<={_EMOJI})([\ufe0f\U0001f3fb-\U0001f3ff]*)\u200d(?={_EMOJI})")
"""A zero-width joiner between two emoji makes one of them, such as a family. No other format character is needed."""


def is_plain(name: str) -> bool:
    """Tell whether a name has none of the characters that hide something."""
    return not any(_hides(character) for character in _JOINED.sub(r"\1", name))


def plain(name: str) -> str:
    """Return a name without the characters that hide something."""
    kept = {match.end(1) for match in _JOINED.finditer(name)}
    return "".join(character for at, character in enumerate(name) if at in kept or not _hides(character))


def _hides(character: str) -> bool:
    return unicodedata.category(character) in _NEVER or character in _BLANK
