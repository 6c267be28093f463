"""Names that users chose, on their way back to whoever saves a file."""

import pytest

from gateway.web.dispositions import parameter
from gateway.web.file_names import inline


@pytest.mark.parametrize(
    ("name", "extension", "saved"),
    [
        ("take 1.wav", "wav", "take 1.wav"),
        ("TAKE.WAV", "wav", "TAKE.WAV"),
        ("take", "webm", "take.webm"),
        ("page.html", "wav", "page.html.wav"),
        ("run.exe", None, "run.exe"),
        ("녹음 (1).m4a", "m4a", "녹음 (1).m4a"),
        ("é.wav", "wav", "é.wav"),
        ("gpj.\u202evaw.exe", "wav", "gpj.vaw.exe.wav"),
        ("a\u200bb\ufeff.wav", "wav", "ab.wav"),
        ("\ud800x.wav", "wav", "x.wav"),
        ('"; filename="evil.exe', "wav", "; filename= evil.exe.wav"),
        ("a\r\nX-Evil: 1.wav", "wav", "aX-Evil  1.wav"),
        ("../../etc/passwd", "wav", "etc passwd.wav"),
        ("C:\\con.wav", "wav", "C  con.wav"),
        ("100%25.wav", "wav", "100 25.wav"),
        ("...", "wav", "audio.wav"),
        ("", "flac", "audio.flac"),
        ("🎤.ogg", "ogg", "🎤.ogg"),
    ],
)
def test_a_name_is_kept_but_for_what_could_harm(name: str, extension: str | None, saved: str) -> None:
    header = inline(name, extension)
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith("inline; ")
    assert parameter(header, "filename") == saved


def test_a_plain_name_is_there_for_clients_that_know_no_other() -> None:
    assert inline("녹음.wav", "wav") == "inline; filename=\"__.wav\"; filename*=UTF-8''%EB%85%B9%EC%9D%8C.wav"
    assert inline("take.wav", "wav") == 'inline; filename="take.wav"'
