"""The checked-in contract documents, read once."""

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "contracts"
EXAMPLES = sorted((CONTRACTS / "examples").glob("*/*.json"))

Document = dict[str, Any]


@cache
def document(path: str) -> Document:
    """Return a JSON document below contracts/."""
    found: Document = json.loads((CONTRACTS / path).read_text(encoding="utf-8"))
    return found


def resolved(reference: str, within: Document) -> Any:
    """Return what a local reference points to (RFC 6901); KeyError when there is nothing."""
    place: Any = within
    for step in reference.removeprefix("#/").split("/"):
        place = place[step.replace("~1", "/").replace("~0", "~")]
    return place


def references(part: Any) -> list[str]:
    """Return every `$ref` in a document."""
    if isinstance(part, list):
        return [found for inner in part for found in references(inner)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [found for inner in part.values() for found in references(inner)]
