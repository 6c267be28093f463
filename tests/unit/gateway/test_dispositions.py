"""What a file is called: in all the ways that clients write it, right or wrong."""

import encodings
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.dispositions import parameter, parameters

KOREAN = "녹음 🎤.wav"
UTF8 = "utf-8''" + quote(KOREAN)
NAMES: dict[str, tuple[str, str | None]] = {
    "quoted": ('filename="a b.wav"', "a b.wav"),
    "unquoted": ("filename=a.wav", "a.wav"),
    "unquoted, with spaces": ("filename=a b.wav ; size=3", "a b.wav"),
    "in single quotes": ("filename='a.wav'", "a.wav"),
    "with spaces around": ('filename = "a.wav"', "a.wav"),
    "empty": ('filename=""', ""),
    "none": ("size=3", None),
    "in capitals": ('FileName="a.wav"', "a.wav"),
    "in UTF-8": (f'filename="{KOREAN}"', KOREAN),
    "with a semicolon": ('filename="a;b.wav"', "a;b.wav"),
    "with an escaped quote": (r'filename="a\"b\\c.wav"', 'a"b\\c.wav'),
    "with a bare quote": ('filename="a"b.wav"; size=3', 'a"b.wav'),
    "with a Windows path": (r'filename="C:\fakepath\a.wav"', r"C:\fakepath\a.wav"),
    "with a backslash at its end": ('filename="a\\"; size=3', "a\\"),
    "without its end": ('filename="a.wav', '"a.wav'),
    "with a browser's escapes": ('filename="%22a%0D%0Ab%25%2F.wav"', '"a\r\nb%25%2F.wav'),
    "extended": (f"filename*={UTF8}", KOREAN),
    "extended, in quotes": (f'filename*="{UTF8}"', KOREAN),
    "extended, with a language": ("filename*=UTF-8'en'a%20b.wav", "a b.wav"),
    "extended, in Latin-1": ("filename*=iso-8859-1''caf%E9.wav", "café.wav"),
    "extended, in EUC-KR": ("filename*=euc-kr''%B3%EC%C0%BD.wav", "녹음.wav"),
    "extended, without a charset": (f"filename*={quote(KOREAN)}", KOREAN),
    "extended, not escaped": (f"filename*=UTF-8''{KOREAN}", KOREAN),
    "extended before plain": (f'filename*={UTF8}; filename="x.wav"', KOREAN),
    "extended after plain": (f'filename="x.wav"; filename*={UTF8}', KOREAN),
    "extended beside encoded words": (f'filename="=?utf-8?B?7Jik66WY?="; filename*={UTF8}', KOREAN),
    "extended, undecodable": ("filename=\"x.wav\"; filename*=utf-8''%FF", "x.wav"),
    "extended, in an unknown charset": ("filename=\"x.wav\"; filename*=klingon''%41", "x.wav"),
    "extended, in what is no charset": ("filename=\"x.wav\"; filename*=idna''a-b", "x.wav"),
    "in pieces": ('filename*0="long "; filename*1="name.wav"', "long name.wav"),
    "in extended pieces": ("filename*0*=utf-8''%EB%85; filename*1*=%B9%EC%9D%8C; filename*2=100%.wav", "녹음100%.wav"),
    "encoded words": ('filename="=?UTF-8?B?64W57J2MLndhdg==?="', "녹음.wav"),
    "encoded words, not padded": ('filename="=?UTF-8?B?64W57J2MLndhdg?="', "녹음.wav"),
    "encoded words of letters": ('filename="=?utf-8?q?caf=C3=A9_1=2Ewav?="', "café 1.wav"),
    "encoded words in a row": ('filename="=?utf-8?B?64W5?=\t =?utf-8?B?7J2M?=.wav"', "녹음.wav"),
    "encoded words that are none": ('filename="=?utf-8?B?!!!?=.wav"', "=?utf-8?B?!!!?=.wav"),
    "encoded words of no text": ('filename="=?utf-8?B?/////w==?="', "=?utf-8?B?/////w==?="),
    "what looks like an encoded word": ('filename="=?what?.wav"', "=?what?.wav"),
}


def header(given: str) -> str:
    """The header as the form's parser gives it: one character for each byte."""
    return f'form-data; name="file"; {given}'.encode().decode("latin-1")


@pytest.mark.parametrize(("written", "name"), NAMES.values(), ids=NAMES)
def test_a_file_name_is_read_as_it_was_meant(written: str, name: str | None) -> None:
    assert parameter(header(written), "filename") == name
    assert parameter(header(written), "name") == "file"


@pytest.mark.parametrize(
    "disposition",
    [
        "form-data;name=file",
        "form-data; name='file'",
        "form-data; name*=utf-8''file",
        'form-data; filename="a; name=x"; name=file',
        'attachment;\tname = "file"',
        'form-data; name="file"; name="other"',
    ],
)
def test_a_field_is_named_in_many_ways(disposition: str) -> None:
    assert parameter(disposition, "name") == "file"


def test_a_name_of_a_korean_windows_is_read_in_its_code_page() -> None:
    assert parameter('x; filename="' + "녹음.wav".encode("cp949").decode("latin-1") + '"', "filename") == "녹음.wav"


@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_can_be_read(text: str) -> None:
    for name in ("filename", "name"):
        assert isinstance(parameter(text, name), str | None)


@pytest.mark.parametrize(
    "unit", ['; a="', ';a="\\', ";a=", '"; ', "=?a?b?", "=?utf-8?b?", "?= =?", " ", "; filename*0=", "%22", "\\", "'"]
)
def test_a_long_header_is_read_in_no_time(unit: str) -> None:
    began = time.process_time()
    long = unit * (128 * 1024 // len(unit))
    parameters(long)
    parameter(f'form-data; filename="{long}', "filename")
    parameter(f'form-data; filename="{long}"', "filename")
    parameter(f"form-data; filename*={long}", "filename")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("written", ["filename*={}''a", 'filename="=?{}?q?a?="', "filename*0*={}''a; filename*1=b"])
def test_no_name_of_a_charset_is_kept(written: str) -> None:
    parameter(header(written.format("utf-8")), "filename")
    known = set(vars(encodings)["_cache"])
    for charset in ("klingon-7", "KLINGON_8", "x" * 10_000, "utf-8-7", "utf-8" + "-" * 10_000, "가", "os", "idna"):
        parameter(header(written.format(charset)), "filename")
    assert set(vars(encodings)["_cache"]) == known


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        *[(name, "cp949") for name in ("CP949", "ms949", "x-windows-949", "UHC")],
        *[(name, "euc-kr") for name in ("EUC-KR", "euc_kr", "ks_c_5601-1987", "KSC5601", "EUCKR")],
        *[(name, "utf-8") for name in ("utf-8", "UTF8", "Utf_8")],
        *[(name, "utf-16-le") for name in ("utf-16le", "UTF-16-LE")],
        *[(name, "cp932") for name in ("windows-31j", "cp932", "Shift_JIS", "sjis")],
        *[(name, "gb18030") for name in ("gb18030", "GBK", "gb2312", "big5")],
    ],
)
def test_a_charset_is_known_by_its_usual_names(charset: str, codec: str) -> None:
    name = "中.wav" if codec in {"cp932", "gb18030"} else "녹음.wav"
    written = quote(name.encode("big5" if charset == "big5" else codec))
    assert parameter(f"x; filename*={charset}''{written}", "filename") == name
