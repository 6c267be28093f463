"""An S3 server in memory that takes nothing on trust, and can be as particular as any store that is not AWS.

It always checks the signature (Version 4), Content-Length, the hashes that a request carries and S3's rules of parts.
It refuses headers and parameters that it does not know. What differs between stores is a field of `StrictS3`.

The libraries that do this (moto) forgive what stores refuse, and load most of AWS for it.
"""

import base64
import binascii
import hashlib
import hmac
import itertools
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.ports import free_port

BUCKET = "recordings"
KEYS = ("key", "a-secret-of-the-test")
REGION = "us-east-1"
MIN_PART_BYTES = 5 * 1024 * 1024
PAGE_KEYS = 1000

_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_KNOWN_HEADERS = re.compile(
    r"x-amz-(date|content-sha256|copy-source(-if-match)?|metadata-directive|meta-[-a-z0-9]+|security-token"
    r"|checksum-[a-z0-9]+|sdk-checksum-algorithm)"
)
_CHECKSUMS = ("x-amz-checksum-", "x-amz-sdk-checksum-algorithm", "x-amz-trailer")
_KNOWN_PARAMETERS = {"list-type", "prefix", "max-keys", "continuation-token", "start-after", "encoding-type"} | {
    *("delete", "uploads", "uploadId", "partNumber")
}


class RefusedError(Exception):
    """The answer is an error of S3; `code` is empty when the store, or a proxy before it, answers in HTML."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass
class Stored:
    """An object."""

    content: bytes
    content_type: str
    metadata: dict[str, str]
    written: datetime = field(default_factory=lambda: datetime.now(UTC))
    etag: str = ""

    def __post_init__(self) -> None:
        self.etag = self.etag or f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'

    @property
    def headers(self) -> dict[str, str]:
        """What GET and HEAD say of it."""
        described = {f"x-amz-meta-{name}": value for name, value in self.metadata.items()}
        written = format_datetime(self.written, usegmt=True)
        return {"etag": self.etag, "last-modified": written, "content-type": self.content_type, **described}


@dataclass
class Upload:
    """A multipart upload under way."""

    key: str
    content_type: str
    metadata: dict[str, str]
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    parts: dict[int, Stored] = field(default_factory=dict)


@dataclass
class StrictS3:
    """The store, an ASGI application; its fields may be changed at any time, from any thread."""

    port: int = field(default_factory=free_port)
    wants_content_md5: bool = False
    """DeleteObjects without Content-MD5 is refused."""
    knows_checksums: bool = True
    """Else x-amz-checksum-*, and bodies in aws-chunked, are refused."""
    knows_expect: bool = True
    """Else 417 for `Expect: 100-continue`."""
    batch_refusal: tuple[int, str] | None = None
    """The status and code that are answered to DeleteObjects."""
    deletes: bool = True
    """Else every deletion is denied: by key in DeleteObjects, 403 for one object."""
    ignores_batches: bool = False
    """DeleteObjects is answered as if it were done."""
    says_what_was_not_there: bool = False
    """Deleting what is not there is NoSuchKey, as Google's store has it."""
    lists_uploads: bool = True
    session_tokens: set[str] = field(default_factory=set)
    """The tokens that may go with the keys, one of which must then."""
    refused_agent: str | None = None
    """Whoever names this in User-Agent is refused."""
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Of every request its method and target, in order."""
    agents: list[str] = field(default_factory=list)
    """Of every request its User-Agent, in order."""
    refused: list[str] = field(default_factory=list)
    """Every code that was answered, in order."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a service that uses it."""
        keys = {"AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_REGION": REGION}
        return {"S3_ENDPOINT_URL": self.url, "S3_BUCKET_NAME": BUCKET, **keys}

    @contextmanager
    def running(self) -> Iterator["StrictS3"]:
        """Answer on a thread of its own until the block ends."""
        with answering(self, self.port):
            yield self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        target = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}".rstrip("?")
        self.asked.append(f"{request.method} {target}")
        self.agents.append(request.headers.get("user-agent", ""))
        try:
            response = self._answer(request, target, await self._body(request))
        except RefusedError as error:
            self.refused.append(error.code)
            response = _xml(f"<Error><Code>{error.code}</Code><Message>No.</Message></Error>", error.status)
            if not error.code:
                response = Response("<html><body>Not here<hr></body></html>", error.status, media_type="text/html")
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _body(self, request: Request) -> bytes:
        headers = request.headers
        if "expect" in headers and not self.knows_expect:
            raise RefusedError(417, "ExpectationFailed")
        if request.method in {"PUT", "POST"} and "content-length" not in headers:
            raise RefusedError(411, "MissingContentLength")
        return await request.body()

    def _answer(self, request: Request, target: str, body: bytes) -> Response:
        _check_signature(request, target)
        token = request.headers.get("x-amz-security-token")
        if (token is not None or self.session_tokens) and token not in self.session_tokens:
            raise RefusedError(403, "InvalidToken")
        if self.refused_agent is not None and self.refused_agent in self.agents[-1]:
            raise RefusedError(501, "NotImplemented")
        self._check_headers(request.headers)
        _check_hashes(request.headers, body)
        asked = dict(parse_qsl(request.scope["query_string"].decode().replace("+", "%2B"), keep_blank_values=True))
        if unknown := set(asked) - _KNOWN_PARAMETERS:
            raise RefusedError(501, f"NotImplemented {unknown}")
        bucket, _, key = unquote(target.partition("?")[0].removeprefix("/")).partition("/")
        if bucket != BUCKET:
            raise RefusedError(404, "NoSuchBucket")
        named = f"_{request.method.lower()}_{'object' if key else 'bucket'}"
        answer = getattr(self, named, None)
        if answer is None:
            raise RefusedError(405, "MethodNotAllowed")
        found: Response = answer(key, asked, request.headers, body) if key else answer(asked, request.headers, body)
        return found

    def _check_headers(self, headers: Headers) -> None:
        chunked = "aws-chunked" in headers.get("content-encoding", "") or "x-amz-decoded-content-length" in headers
        if chunked or headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            raise RefusedError(501, "NotImplemented")
        for name in headers:
            if name.startswith("x-amz-") and not _KNOWN_HEADERS.fullmatch(name):
                raise RefusedError(501, "NotImplemented")
            if name.startswith(_CHECKSUMS) and not self.knows_checksums:
                raise RefusedError(501, "NotImplemented")

    def _head_bucket(self, *_: object) -> Response:
        return Response()

    def _get_bucket(self, asked: Mapping[str, str], *_: object) -> Response:
        if "uploads" in asked:
            return self._listed_uploads(asked.get("prefix", ""))
        if asked.get("list-type") != "2":
            raise RefusedError(501, "NotImplemented")
        prefix, most = asked.get("prefix", ""), int(asked.get("max-keys", PAGE_KEYS))
        after = asked.get("continuation-token", asked.get("start-after", ""))
        keys = sorted(key for key in self.objects.copy() if key.startswith(prefix) and key > after)
        page = keys[: min(most, PAGE_KEYS)]
        more = len(keys) > len(page)
        written = _as_url if asked.get("encoding-type") == "url" else escape
        encoding = "<EncodingType>url</EncodingType>" if asked.get("encoding-type") == "url" else ""
        following = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more and page else ""
        entries = "".join(_entry(written(key), self.objects[key]) for key in page)
        counted = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        return _xml(f"<ListBucketResult>{encoding}{counted}{following}{entries}</ListBucketResult>")

    def _listed_uploads(self, prefix: str) -> Response:
        if not self.lists_uploads:
            raise RefusedError(501, "NotImplemented")
        entries = "".join(
            f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{number}</UploadId>"
            f"<Initiated>{upload.begun.isoformat()}</Initiated></Upload>"
            for number, upload in self.uploads.items()
            if upload.key.startswith(prefix)
        )
        return _xml(f"<ListMultipartUploadsResult>{entries}</ListMultipartUploadsResult>")

    def _post_bucket(self, asked: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        if "delete" not in asked:
            raise RefusedError(405, "MethodNotAllowed")
        if self.batch_refusal is not None:
            raise RefusedError(*self.batch_refusal)
        if "content-md5" not in headers and (
            self.wants_content_md5 or not any(name.startswith("x-amz-checksum-") for name in headers)
        ):
            raise RefusedError(400, "MissingContentMD5" if self.wants_content_md5 else "InvalidRequest")
        keys = [found.text or "" for found in ElementTree.fromstring(body).iter(f"{_NAMESPACE}Key")]
        if not 0 < len(keys) <= PAGE_KEYS:
            raise RefusedError(400, "MalformedXML")
        kept = {key: code for key in keys if (code := self._deleted(key, ignored=self.ignores_batches))}
        errors = (f"<Error><Key>{escape(key)}</Key><Code>{code}</Code></Error>" for key, code in kept.items())
        return _xml(f"<DeleteResult>{''.join(errors)}</DeleteResult>")

    def _delete_object(self, key: str, asked: Mapping[str, str], *_: object) -> Response:
        if "uploadId" in asked:
            self._upload(key, asked, ended=True)
        elif code := self._deleted(key):
            raise RefusedError(404 if code == "NoSuchKey" else 403, code)
        return Response(status_code=204)

    def _deleted(self, key: str, *, ignored: bool = False) -> str:
        """Delete, and return a code when that is refused."""
        if ignored:
            return ""
        if not self.deletes:
            return "AccessDenied"
        found = self.objects.pop(key, None)
        return "NoSuchKey" if found is None and self.says_what_was_not_there else ""

    def _head_object(self, key: str, *_: object) -> Response:
        found = self._found(key)
        return Response(headers={**found.headers, "content-length": str(len(found.content))})

    def _get_object(self, key: str, _: object, headers: Headers, __: object) -> Response:
        found = self._found(key, headers.get("if-match"))
        if "range" not in headers:
            return Response(found.content, headers=found.headers)
        size = len(found.content)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", headers["range"])
        if asked is None or not any(asked.groups()):
            return Response(found.content, headers=found.headers)
        first = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first > last:
            raise RefusedError(416, "InvalidRange")
        given = {**found.headers, "content-range": f"bytes {first}-{last}/{size}"}
        return Response(found.content[first : last + 1], 206, headers=given)

    def _put_object(self, key: str, asked: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        kind, metadata = headers.get("content-type", "binary/octet-stream"), _metadata(headers)
        if "x-amz-copy-source" in headers:
            return self._copied(key, headers, kind, metadata)
        stored = Stored(body, kind, metadata)
        if "partNumber" in asked:
            self._upload(key, asked).parts[int(asked["partNumber"])] = stored
        else:
            self.objects[key] = stored
        return Response(headers={"etag": stored.etag})

    def _copied(self, key: str, headers: Headers, kind: str, metadata: dict[str, str]) -> Response:
        bucket, _, source = unquote(headers["x-amz-copy-source"].removeprefix("/")).partition("/")
        if bucket != BUCKET:
            raise RefusedError(404, "NoSuchBucket")
        found = self._found(source, headers.get("x-amz-copy-source-if-match"))
        replaced = headers.get("x-amz-metadata-directive") == "REPLACE"
        described = (kind, metadata) if replaced else (found.content_type, found.metadata)
        self.objects[key] = copied = Stored(found.content, *described)
        return _xml(f"<CopyObjectResult><ETag>{escape(copied.etag)}</ETag></CopyObjectResult>")

    def _post_object(self, key: str, asked: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        if "uploads" in asked:
            number = f"upload-{next(self._numbers)}"
            kind = headers.get("content-type", "binary/octet-stream")
            self.uploads[number] = Upload(key, kind, _metadata(headers))
            return _xml(f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>")
        upload = self._upload(key, asked)
        parts = _parts(upload, body)
        self._upload(key, asked, ended=True)
        etag = f'"{hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"'
        self.objects[key] = Stored(b"".join(parts), upload.content_type, upload.metadata, etag=etag)
        return _xml(f"<CompleteMultipartUploadResult><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>")

    def _upload(self, key: str, asked: Mapping[str, str], *, ended: bool = False) -> Upload:
        upload = self.uploads.get(asked.get("uploadId", ""))
        if upload is None or upload.key != key:
            raise RefusedError(404, "NoSuchUpload")
        return self.uploads.pop(asked["uploadId"]) if ended else upload

    def _found(self, key: str, etag: str | None = None) -> Stored:
        found = self.objects.get(key)
        if found is None:
            raise RefusedError(404, "NoSuchKey")
        if etag not in {None, found.etag}:
            raise RefusedError(412, "PreconditionFailed")
        return found


@contextmanager
def answering(app: ASGIApp, port: int) -> Iterator[None]:
    """Have an ASGI application answer on a port, on a thread of its own, until the block ends."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name=f"port {port}")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the store did not start"
            thread.join(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


def _parts(upload: Upload, body: bytes) -> list[bytes]:
    """Return the parts that a CompleteMultipartUpload names, if it may."""
    named = [
        (int(part.findtext(f"{_NAMESPACE}PartNumber", "0")), part.findtext(f"{_NAMESPACE}ETag"))
        for part in ElementTree.fromstring(body)
    ]
    if not named or named != sorted(set(named)):
        raise RefusedError(400, "InvalidPartOrder")
    if any(number not in upload.parts or upload.parts[number].etag != etag for number, etag in named):
        raise RefusedError(400, "InvalidPart")
    contents = [upload.parts[number].content for number, _ in named]
    if any(len(content) < MIN_PART_BYTES for content in contents[:-1]):
        raise RefusedError(400, "EntityTooSmall")
    return contents


def _metadata(headers: Headers) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}


def _entry(key: str, stored: Stored) -> str:
    described = f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.content)}</Size>"
    return f"<Contents><Key>{key}</Key><LastModified>{stored.written.isoformat()}</LastModified>{described}</Contents>"


def _as_url(key: str) -> str:
    return quote(key, safe="/").replace("%20", "+")


def _xml(text: str, status: int = 200) -> Response:
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}', status, media_type="application/xml")


def _check_hashes(headers: Headers, body: bytes) -> None:
    said = headers.get("x-amz-content-sha256")
    if said is None:
        raise RefusedError(400, "MissingSecurityHeader")
    if said not in {"UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()}:
        raise RefusedError(400, "XAmzContentSHA256Mismatch")
    if "content-md5" in headers:
        _check_md5(headers["content-md5"], hashlib.md5(body, usedforsecurity=False).digest())


def _check_md5(said: str, digest: bytes) -> None:
    try:
        decoded = base64.b64decode(said, validate=True)
    except binascii.Error:
        raise RefusedError(400, "InvalidDigest") from None
    if len(decoded) != len(digest):
        raise RefusedError(400, "InvalidDigest")
    if decoded != digest:
        raise RefusedError(400, "BadDigest")


def _check_signature(request: Request, target: str) -> None:
    """Compute the signature as AWS documents it (Signature Version 4, Authorization header)."""
    parts = dict(re.findall(r"(\w+)=([^,\s]+)", request.headers.get("authorization", "")))
    key, _, scope = parts.get("Credential", "").partition("/")
    if key != KEYS[0] or scope.split("/")[1:] != [REGION, "s3", "aws4_request"]:
        raise RefusedError(403, "InvalidAccessKeyId")
    names = parts["SignedHeaders"].split(";")
    if any(name.startswith("x-amz-") and name not in names for name in request.headers):
        raise RefusedError(403, "AccessDenied")
    path, _, query = target.partition("?")
    pairs = sorted(item if "=" in item else f"{item}=" for item in query.split("&") if item)
    canonical = [request.method, quote(unquote(path), safe="/-_.~"), "&".join(pairs)]
    canonical += [f"{name}:{' '.join(request.headers[name].split())}" for name in names]
    canonical += ["", ";".join(names), request.headers.get("x-amz-content-sha256", "")]
    hashed = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, hashed])
    secret = f"AWS4{KEYS[1]}".encode()
    for step in [*scope.split("/"), text]:
        secret = hmac.digest(secret, step.encode(), "sha256")
    if not hmac.compare_digest(secret.hex(), parts.get("Signature", "")):
        raise RefusedError(403, "SignatureDoesNotMatch")
