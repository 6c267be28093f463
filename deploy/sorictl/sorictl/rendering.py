"""What a person sees of dead letters, and what a program reads: tables, one message whole, JSON."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from pydantic_core import from_json
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sorictl.letter import DeadLetter, Message
from sorictl.redaction import without_secrets

LONGEST_TEXT = 200
MOST_ITEMS = 8
MOST_FIELDS = 40
UNKNOWN = "–"

_HIGH_CONTROLS = re.compile(r"[\x7f-\x9f]")


def table(letters: Sequence[DeadLetter]) -> RenderableType:
    """One table for each queue; readable from 80 columns on. Times are UTC."""
    parts: list[RenderableType] = []
    for queue, group in groupby(letters, lambda letter: letter.queue):
        of_queue = list(group)
        parts += [Text(f"{queue}: {counted(len(of_queue))}", style="bold"), _queue_table(of_queue), Text()]
    return Group(*parts[:-1])


def totals(letters: Iterable[DeadLetter]) -> RenderableType:
    """How many there are of each queue."""
    grid = Table.grid(padding=(0, 2))
    for queue, count in Counter(letter.queue for letter in letters).items():
        grid.add_row(f"  {queue}", str(count))
    return grid


def whole(letter: DeadLetter, message: Message, *, full: bool) -> RenderableType:
    """Everything about one message; what is long in its body is shortened unless `full`."""
    facts = Text()
    for name, value in (
        ("id", letter.id),
        ("queue", letter.queue),
        ("event", letter.event_type),
        ("event id", letter.event_id),
        ("job", letter.job_id),
        ("reason", hidden(letter.reason)),
        ("attempts", str(letter.attempts)),
        ("first failure", _when(letter.first_failure)),
        ("last failure", _when(letter.last_failure)),
        ("replays", str(letter.replays)),
        ("service", letter.service_version),
    ):
        facts.append(f"{name:<15}", "bold").append(printable(f"{value or UNKNOWN}\n"))
    size = f"{len(message.body):,} bytes, {message.content_type or 'content type unknown'}"
    return Group(
        facts,
        Text("headers", style="bold"),
        Text(printable(_pretty(_headers(message)))),
        Text.assemble(("\nbody", "bold"), f" ({printable(size)})"),
        Text(printable(_body_text(message.body, full=full))),
    )


def whole_json(letter: DeadLetter, message: Message, *, full: bool) -> str:
    """The same as one JSON object; a body that is not JSON is in `body`, as text, and JSON is in `event`."""
    body = without_secrets(_decoded(message.body))
    shown = body if full else shortened(body)
    facts = {**without_secrets(letter.model_dump(mode="json")), "content_type": message.content_type}
    key = "body" if isinstance(body, str) else "event"
    return json_line({**facts, "headers": _headers(message), key: shown})


def line_json(letter: DeadLetter) -> str:
    """One dead letter as one line of JSON."""
    return json_line(without_secrets(letter.model_dump(mode="json")))


def counted(count: int) -> str:
    """The number of dead letters in words."""
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def hidden(text: str) -> str:
    """The text without secrets."""
    return str(without_secrets(text))


def printable(text: str) -> str:
    """The text with nothing in it that a terminal would act on: messages come from anywhere."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(value: Any) -> Any:
    """The same JSON value with long texts, lists and objects cut, each saying by how much."""
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value) - LONGEST_TEXT:,} more characters)"
    if isinstance(value, list):
        more = [f"… ({len(value) - MOST_ITEMS:,} more)"] if len(value) > MOST_ITEMS else []
        return [*(shortened(item) for item in value[:MOST_ITEMS]), *more]
    if isinstance(value, dict):
        fields = list(value.items())
        more_fields = {"…": f"{len(fields) - MOST_FIELDS:,} more"} if len(fields) > MOST_FIELDS else {}
        return {name: shortened(inner) for name, inner in fields[:MOST_FIELDS]} | more_fields
    return value


def _queue_table(letters: Iterable[DeadLetter]) -> Table:
    shown = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column("id, job, event type", no_wrap=True, overflow="ellipsis", min_width=36)
    shown.add_column("reason, tries, failures (UTC), service", overflow="fold")
    for number, letter in enumerate(letters):
        if number:
            shown.add_row()
        shown.add_row(_names(letter), _history(letter))
    return shown


def _names(letter: DeadLetter) -> Text:
    job, event = letter.job_id or "job unknown", letter.event_type or "event unknown"
    return Text.assemble((printable(letter.id), "cyan"), printable(f"\n{job}\n{event}"))


def _history(letter: DeadLetter) -> Text:
    tries = "1 try" if letter.attempts == 1 else f"{letter.attempts} tries"
    replays = {0: "", 1: ", 1 replay"}.get(letter.replays, f", {letter.replays} replays")
    lines = (
        f"{tries}{replays}, {letter.service_version or 'service unknown'}",
        f"first {_short(letter.first_failure)}, last {_short(letter.last_failure)}",
    )
    return Text.assemble((printable(hidden(letter.reason)), "yellow"), printable("\n" + "\n".join(lines)))


def _headers(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = without_secrets(dict(message.headers))
    return shown


def _body_text(body: bytes, *, full: bool) -> str:
    decoded = without_secrets(_decoded(body))
    shown = decoded if full else shortened(decoded)
    return shown if isinstance(shown, str) else _pretty(shown)


def _decoded(body: bytes) -> Any:
    """The body as JSON, or as text when it is none."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        return body.decode(errors="replace")


def json_line(value: Any) -> str:
    """JSON with the high control codes escaped too: a terminal acts on them, but JSON escapes only the low ones."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _HIGH_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _short(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%m-%d %H:%M:%S") if time else UNKNOWN


def _when(time: datetime | None) -> str | None:
    if time is None:
        return None
    return f"{time.astimezone(UTC).isoformat(sep=' ', timespec='seconds')} ({_ago(datetime.now(UTC) - time)})"


def _ago(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return f"{seconds}s ago"
