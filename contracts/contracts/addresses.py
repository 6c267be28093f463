"""Where things lie in the bucket, what an address names there, and which addresses the catalogue may have."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

REFERENCES = "references/"
"""The prefix of reference audio that was uploaded here."""
UNDERSTOOD = "analysis/"
"""The prefix under which the analysis server keeps what it has understood of references, each under its own key."""
CATALOGUE = "catalogue/"
"""The prefix of other files of the catalogue, unless CATALOGUE_PREFIX names another one."""

_S3_URL = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)
# Amazon S3 User Guide, "Virtual hosting of general purpose buckets": the bucket is in the host or begins the path.
_AWS_HOST = re.compile(
    r"(?:(.+)\.)?s3(?:-accelerate)?(?:\.dualstack)?(?:[.-][a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?"
)


class AddressError(Exception):
    """The given text is not the address of a stored object."""


class OtherBucketError(Exception):
    """The address names an object outside of the bucket."""


class Addresses:
    """Recognises the addresses of one bucket's objects, at AWS or at the S3 endpoint of the settings."""

    def __init__(self, bucket: str, endpoint_url: str | None) -> None:
        self._bucket = bucket
        self._endpoint = urlsplit(endpoint_url.rstrip("/")) if endpoint_url else None

    def key_of(self, address: str) -> str:
        """Return the key that an address names within the bucket; raises AddressError or OtherBucketError.

        Accepts s3://bucket/key, AWS's https:// forms with the bucket in the host or in the path, and addresses at the
        configured endpoint. The query, such as an old signature, is ignored.
        """
        bucket, key = self._named(address)
        if bucket != self._bucket:
            raise OtherBucketError
        # In a store that keeps objects as files, such parts could lead out of the bucket (path traversal).
        if not key or _leads_elsewhere(key) or not key.isprintable():
            raise AddressError
        return key

    def _named(self, address: str) -> tuple[str, str]:
        if match := _S3_URL.fullmatch(address):
            return match[1], match[2]
        try:
            url = urlsplit(address)
            path = unquote(url.path, errors="strict").removeprefix("/")
            is_ours = self._is_endpoint(url)
        except ValueError:
            raise AddressError from None
        if is_ours and self._endpoint:
            return _bucket_and_key(path.removeprefix(self._endpoint.path.lstrip("/")).removeprefix("/"))
        if url.scheme != "https" or not url.hostname:
            raise AddressError
        host = _AWS_HOST.fullmatch(url.hostname)
        if host is None:
            raise OtherBucketError
        return (host[1], path) if host[1] else _bucket_and_key(path)

    def _is_endpoint(self, url: SplitResult) -> bool:
        ours = self._endpoint
        return (
            ours is not None
            and (url.scheme, url.hostname, url.port) == (ours.scheme, ours.hostname, ours.port)
            and url.path.startswith(f"{ours.path}/")
        )


@dataclass(frozen=True)
class CatalogueAddresses:
    """The addresses that the catalogue may have: what lies elsewhere in the bucket are the recordings of people.

    Whoever may write the catalogue could otherwise have the analysis server read them. Allowed are `references/` of the
    bucket, whatever begins with `prefix` (s3://bucket/…/, perhaps of another bucket), and https addresses that name
    nothing in the bucket.
    """

    bucket: str
    endpoint_url: str | None = None
    prefix: str = ""

    def full(self, written: str) -> str:
        """Return an address in full; a bare key is one of our bucket."""
        return written if written.startswith(("s3://", "https://")) else f"s3://{self.bucket}/{written}"

    def allowed(self, written: str) -> str | None:
        """Return the address in full, None when the catalogue may not have it."""
        address = self.full(written)
        try:
            named = f"s3://{self.bucket}/{Addresses(self.bucket, self.endpoint_url).key_of(address)}"
        except OtherBucketError:
            if address.startswith("https://"):
                return address
            named = address
        except AddressError:
            return None
        allowed = (f"s3://{self.bucket}/{REFERENCES}", self.prefix or f"s3://{self.bucket}/{CATALOGUE}")
        return address if named.startswith(allowed) and not _leads_elsewhere(named) else None


def _leads_elsewhere(key: str) -> bool:
    return not {".", ".."}.isdisjoint(key.split("/"))


def _bucket_and_key(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key
