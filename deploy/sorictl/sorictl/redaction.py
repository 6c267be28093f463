"""What a person never sees of a message: anything that looks like a secret."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"

_NAME = r"(?:password|passwd|secret|signature|authorization|cookie|credential|api[-_]?key|security[-_]token)"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_IN_QUERY = re.compile(rf"(?i)([\w-]*{_NAME}[\w-]*=)[^&\s\"']+")
_IN_ADDRESS = re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+@")


def without_secrets(value: Any) -> Any:
    """Return the same headers or JSON value, with what looks like a secret replaced, by name or within an address."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if _SECRET_NAME.search(str(name)) else without_secrets(inner) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return _IN_ADDRESS.sub(rf"\1{HIDDEN}@", _IN_QUERY.sub(rf"\1{HIDDEN}", value)) if isinstance(value, str) else value
