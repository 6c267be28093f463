"""The sample: a small catalogue for a stack that has none, its reference audio, a recording to compare with it."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_stack import speech
from local_stack.errors import StackError
from local_stack.screen import out
from local_stack.sending import DEFAULT_TOKEN, Sori
from local_stack.settings import ROOT
from local_stack.speech import Line, Voice

CATALOGUE = ROOT / "deploy/local/sample-catalogue.json"
ACTOR = Voice("en-us", words_per_minute=140, pitch=45)
"""Speaks the references; the recordings that are sent have another voice."""
KEY_SCOPES = ("catalogue:read", "catalogue:write", "jobs:own")

Row = dict[str, Any]


def load(sori: Sori, mongodb_url: str, home: Path) -> str:
    """Load the sample into an empty catalogue; return the id of the token that the sample recording is for.

    That is the sample's first token, or DEFAULT_TOKEN if the catalogue has other rows: nobody's own rows are ever
    touched. Raises StackError.
    """
    if not sori.tokens():
        import_catalogue(mongodb_url)
    sample = _sample()
    own = [token for token in sample["tokens"] if _is_there(sori, token)]
    for token in own:
        if not (sori.token(token["id"]) or {}).get("reference_audio_url"):
            with _spoken(sample, token, ACTOR, home / f"reference-{token['id']}.wav").open("rb") as audio:
                sori.put_reference(token["id"], audio)
    if sample["tokens"][0] in own:
        return str(sample["tokens"][0]["id"])
    out.print("The catalogue has tokens of its own, and stays as it is: nothing to compare the sample with.")
    return DEFAULT_TOKEN


def recording(home: Path) -> Path:
    """Make a recording of the first token in `home`. It is new each time, so no result comes from a cache.

    Raises StackError when espeak-ng cannot make it.
    """
    sample = _sample()
    learner = Voice("en-us+f4", words_per_minute=150 + secrets.randbelow(11), pitch=50 + secrets.randbelow(11))
    return _spoken(sample, sample["tokens"][0], learner, home / "sample.wav")


def _sample() -> dict[str, list[Row]]:
    return dict(json.loads(CATALOGUE.read_text(encoding="utf-8")))


def _is_there(sori: Sori, token: Row) -> bool:
    found = sori.token(token["id"])
    return found is not None and found["token_name"] == token["token_name"]


def _spoken(sample: Mapping[str, list[Row]], token: Row, voice: Voice, path: Path) -> Path:
    lines = [
        Line(script["start_time"] - token["start_time"], script["script"])
        for script in sample["scripts"]
        if script["token_id"] == token["id"]
    ]
    return speech.make(lines, token["end_time"] - token["start_time"], voice, path)


def import_catalogue(mongodb_url: str) -> None:
    """Load the sample catalogue; StackError when that fails."""
    said = _sorictl(
        mongodb_url, "catalogue", "import", str(CATALOGUE), failed="The sample catalogue could not be loaded."
    )
    out.print(said, end="", markup=False, soft_wrap=True)


def new_key(mongodb_url: str) -> str:
    """Make an API key that may load and send the sample, for an hour; StackError when that fails."""
    scopes = [f"--scope={scope}" for scope in KEY_SCOPES]
    command = ("keys", "create", "make run", "--expires", "1h", *scopes)
    return _sorictl(mongodb_url, *command, failed="No key could be made to send the sample with.").strip()


def _sorictl(mongodb_url: str, *command: str, failed: str) -> str:
    """Run the operator's command; return what it says. StackError with the sentence `failed`."""
    done = subprocess.run(  # noqa: S603  # Sori's own program
        [sys.executable, "-m", "sorictl", *command],
        env={**os.environ, "MONGODB_URL": mongodb_url},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StackError(failed, tuple(done.stderr.splitlines()))
    return done.stdout
