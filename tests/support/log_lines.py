"""The log of a part of the stack as it grows: its JSON lines, read on from where the last look ended."""

import json
from pathlib import Path
from typing import Any


class LogLines:
    """The lines logged after this object was made; those that are no JSON object (a back end's own log) are skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._unfinished = b""

    def new(self) -> list[dict[str, Any]]:
        """The lines since the last look."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as log:
            if self._path.stat().st_size < self._offset:  # the process manager has begun a new file
                self._offset = 0
            log.seek(self._offset)
            said = log.read()
            self._offset = log.tell()
        *lines, self._unfinished = (self._unfinished + said).split(b"\n")
        return [found for line in lines if (found := _json_object(line)) is not None]


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
