"""JSON Schemas and golden examples: they say what the models say, and what was once valid means the same for ever."""

import hashlib
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it ships no types

from contracts import events
from contracts.events import EVENT_TYPES, Event, InvalidEventError
from tests.contract.documents import CONTRACTS, EXAMPLES, ROOT, document

CHECKSUMS = CONTRACTS / "examples" / "SHA256SUMS"


def name(example: Path) -> str:
    return f"{example.parent.name}/{example.stem}"


def validator(event_type: str) -> Draft202012Validator:
    return Draft202012Validator(
        document(f"schemas/{event_type}.json"), format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def normal(value: Any, key: str = "") -> Any:
    """A value with times as moments: 10:00:00Z and 10:00:00.000000Z are the same."""
    if isinstance(value, dict):
        return {name: normal(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    is_time = isinstance(value, str) and key in {"time", "deadline", "created_at", "updated_at"}
    return datetime.fromisoformat(value) if is_time else value


def test_no_document_has_drifted_from_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, "contracts/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_there_is_a_schema_for_every_event_and_none_besides() -> None:
    assert {path.stem for path in (CONTRACTS / "schemas").iterdir()} == {event.TYPE for event in EVENT_TYPES}


@pytest.mark.parametrize("event", EVENT_TYPES, ids=lambda event: event.TYPE)
def test_a_schema_is_the_models_and_valid_itself(event: type[Event]) -> None:
    schema = dict(document(f"schemas/{event.TYPE}.json"))
    assert schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert schema.pop("$id") == f"/schemas/{event.TYPE}"
    assert schema == event.model_json_schema()
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("event", EVENT_TYPES, ids=lambda event: event.TYPE)
def test_every_event_version_has_a_golden_example(event: type[Event]) -> None:
    assert list((CONTRACTS / "examples" / event.TYPE).glob("*.json"))


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_an_example_fits_its_schema(example: Path) -> None:
    validator(example.parent.name).validate(json.loads(example.read_bytes()))


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_an_example_still_means_what_it_meant(example: Path) -> None:
    event = events.decode(example.read_bytes())
    assert event.type == example.parent.name
    assert normal(json.loads(event.encode())) == normal(json.loads(example.read_bytes()))


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_schema_and_model_refuse_the_same(example: Path) -> None:
    whole = json.loads(example.read_bytes())
    broken = [
        {key: value for key, value in whole.items() if key != "subject"},
        whole | {"subject": "7"},
        whole | {"specversion": "0.3"},
        whole | {"traceparent": "00-x"},
        whole | {"data": None},
        whole | {"data": {}},
        whole | {"id": ""},
    ]
    for envelope in broken:
        assert not validator(example.parent.name).is_valid(envelope), envelope
        with pytest.raises(InvalidEventError):
            events.decode(json.dumps(envelope).encode())


def test_examples_are_only_ever_added_to() -> None:
    """To add one: `cd contracts/examples && sha256sum */*.json > SHA256SUMS`; no line that is there may change."""
    lines = [line.split("  ", 1) for line in CHECKSUMS.read_text(encoding="utf-8").splitlines()]
    listed = {path: checksum for checksum, path in lines}
    present = {
        f"{example.parent.name}/{example.name}": hashlib.sha256(example.read_bytes()).hexdigest()
        for example in EXAMPLES
    }
    assert present == listed
