"""Which addresses name an object of the analysis server's bucket."""

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.addresses import AddressError, Addresses, CatalogueAddresses, OtherBucketError

AWS = Addresses("sori-audio", None)
OWN = Addresses("sori-audio", "http://127.0.0.1:9000/s3/")

_PART = st.text(string.ascii_letters + string.digits + " 한글+%?#&=;.~", min_size=1).filter(
    lambda it: it not in {".", ".."}
)


@pytest.mark.parametrize(
    "address",
    [
        "s3://sori-audio/references/1/a.wav",
        "https://sori-audio.s3.amazonaws.com/references/1/a.wav",
        "https://sori-audio.s3.ap-northeast-2.amazonaws.com/references/1/a.wav",
        "https://sori-audio.s3-us-west-2.amazonaws.com/references/1/a.wav",
        "https://sori-audio.s3.dualstack.eu-west-1.amazonaws.com/references/1/a.wav",
        "https://sori-audio.s3-accelerate.amazonaws.com/references/1/a.wav",
        "https://sori-audio.s3.cn-north-1.amazonaws.com.cn/references/1/a.wav",
        "https://s3.amazonaws.com/sori-audio/references/1/a.wav",
        "https://s3.us-gov-west-1.amazonaws.com/sori-audio/references/1/a.wav",
        "https://SORI-AUDIO.s3.amazonaws.com/references/1/a.wav?X-Amz-Signature=00&X-Amz-Expires=60",
        "https://s3.amazonaws.com/sori%2Daudio/references%2F1/a.wav#t=1",
        "http://127.0.0.1:9000/s3/sori-audio/references/1/a.wav",
    ],
)
def test_every_form_of_an_address_in_the_bucket_is_understood(address: str) -> None:
    assert OWN.key_of(address) == "references/1/a.wav"


@given(st.lists(_PART, min_size=1, max_size=4).map("/".join))
def test_any_key_comes_out_of_its_address_as_it_went_in(key: str) -> None:
    assert AWS.key_of(f"s3://sori-audio/{key}") == key
    assert AWS.key_of(f"https://sori-audio.s3.amazonaws.com/{quote(key)}") == key
    assert OWN.key_of(f"http://127.0.0.1:9000/s3/sori-audio/{quote(key)}") == key


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("a+b.wav", "a+b.wav"),
        ("a%2Bb.wav", "a+b.wav"),
        ("a%20b.wav", "a b.wav"),
        ("a%2520b.wav", "a%20b.wav"),
        ("a%25b.wav", "a%b.wav"),
        ("100%.wav", "100%.wav"),
        ("a%23b%3Fc.wav", "a#b?c.wav"),
        ("%EB%85%B9%EC%9D%8C.wav", "녹음.wav"),
        ("녹음.wav", "녹음.wav"),
        ("a//b.wav", "a//b.wav"),
        ("/a.wav", "/a.wav"),
        ("%2Fa.wav", "/a.wav"),
        ("a.wav?versionId=3&X-Amz-Signature=a%2Bb", "a.wav"),
    ],
)
def test_the_path_of_a_web_address_is_decoded_once_and_that_of_s3_never(written: str, key: str) -> None:
    assert AWS.key_of(f"https://sori-audio.s3.amazonaws.com/{written}") == key
    assert AWS.key_of(f"https://s3.eu-west-1.amazonaws.com/sori-audio/{written}") == key
    assert OWN.key_of(f"http://127.0.0.1:9000/s3/sori-audio/{written}") == key
    assert OWN.key_of(f"s3://sori-audio/{written}") == written


@pytest.mark.parametrize(
    "address",
    [
        "s3://other/a.wav",
        "https://other.s3.amazonaws.com/a.wav",
        "https://s3.amazonaws.com/other/sori-audio/a.wav",
        "https://sori-audio.example.com/a.wav",
        "https://sori-audio.s3.amazonaws.com.example.com/a.wav",
        "https://sori-audio.s3.amazonaws.com@example.com/a.wav",
        "https://evil.sori-audio.s3.amazonaws.com/a.wav",
        "https://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:9000/s3/other/a.wav",
    ],
)
def test_what_is_not_in_the_bucket_is_told_apart(address: str) -> None:
    with pytest.raises(OtherBucketError):
        OWN.key_of(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "references/1/a.wav",
        "s3://sori-audio",
        "s3://sori-audio/",
        "s3://sori-audio/../other/a.wav",
        "S3://sori-audio/a.wav",
        "https://sori-audio.s3.amazonaws.com/",
        "https://s3.amazonaws.com/sori-audio",
        "https://sori-audio.s3.amazonaws.com/%2e%2e/other/a.wav",
        "https://sori-audio.s3.amazonaws.com/%ff.wav",
        "https://sori-audio.s3.amazonaws.com/a%0ab.wav",
        "http://sori-audio.s3.amazonaws.com/a.wav",
        "http://127.0.0.1:9001/s3/sori-audio/a.wav",
        "http://127.0.0.1:9000/s3x/sori-audio/a.wav",
        "https://127.0.0.1:port/a.wav",
        "https://[::1/a.wav",
        "https:///a.wav",
        "file:///etc/passwd",
        "ftp://sori-audio.s3.amazonaws.com/a.wav",
    ],
)
def test_what_is_no_address_of_an_object_is_told_apart(address: str) -> None:
    with pytest.raises(AddressError):
        OWN.key_of(address)


ALLOWED = CatalogueAddresses("sori", "https://s3.example/s3")


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("references/7/00000000000000aa", "s3://sori/references/7/00000000000000aa"),
        ("catalogue/a b.TextGrid", "s3://sori/catalogue/a b.TextGrid"),
        ("s3://sori/catalogue/x/pitch.json", None),
        ("https://sori.s3.amazonaws.com/catalogue/pitch.json", None),
        ("https://s3.example/s3/sori/references/7/a?versionId=1", None),
        ("https://cdn.example/audio/bg.wav", None),
        ("https://other.s3.amazonaws.com/audio/bg.wav", None),
    ],
)
def test_the_catalogue_may_have_its_own_files_and_those_of_the_web(written: str, full: str | None) -> None:
    assert ALLOWED.allowed(written) == (full or written)


@pytest.mark.parametrize(
    "written",
    [
        "audio/73732cad.wav",
        "s3://sori/audio/73732cad.wav",
        "s3://sori/inbox/73732cad",
        "s3://sori/analysis/references/7/a.0",
        "s3://sori/analysis-server/accepted-0",
        "s3://sori/references/../audio/73732cad.wav",
        "s3://sori/catalogue/x/../../audio/73732cad.wav",
        "references/./../audio/73732cad.wav",
        "s3://sori/references",
        "s3://sori/catalogue.wav",
        "s3://sori//references/a.wav",
        "s3://other/catalogue/a.wav",
        "s3://Sori/catalogue/a.wav",
        "https://sori.s3.amazonaws.com/audio/73732cad.wav",
        "https://sori.s3.eu-west-1.amazonaws.com/audio/73732cad.wav",
        "https://user@sori.s3.amazonaws.com:443/%61udio/73732cad.wav",
        "https://s3.us-east-1.amazonaws.com/sori/audio/73732cad.wav",
        "https://sori.s3.amazonaws.com/references/%2e%2e/audio/73732cad.wav",
        "https://s3.example/s3/sori/audio/73732cad.wav",
        "https://S3.example/s3/sori/inbox/73732cad?X-Amz-Signature=1",
    ],
)
def test_the_catalogue_may_name_nothing_else_in_the_bucket(written: str) -> None:
    assert ALLOWED.allowed(written) is None


def test_the_catalogues_prefix_may_lie_in_another_bucket() -> None:
    elsewhere = CatalogueAddresses("sori", None, "s3://clips/of/actors/")
    assert elsewhere.allowed("s3://clips/of/actors/1.wav") == "s3://clips/of/actors/1.wav"
    assert elsewhere.allowed("references/7/a") == "s3://sori/references/7/a"
    for written in ("catalogue/1.wav", "s3://clips/of/1.wav", "s3://clips/of/actors/../1.wav", "of/actors/1.wav"):
        assert elsewhere.allowed(written) is None
