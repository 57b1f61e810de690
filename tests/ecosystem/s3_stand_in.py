"""A small stand-in for Amazon's S3, enough for what clients ask most: buckets in memory, served by aiohttp.

Objects with range reads, lists page by page, multipart uploads, S3's XML. Signatures are not verified.
`refuse_next` makes the next requests fail as a busy service does; `hold` makes reads of a key stop halfway.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

PIECE = 1 << 16


class StandIn:
    """The buckets, and how to misbehave."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.refuse_next = 0
        self.hold: set[str] = set()
        self.held_request_ended = asyncio.Event()
        self._upload_numbers = itertools.count(1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await _payload(request)
        if self.refuse_next:
            self.refuse_next -= 1
            return _error(503, "SlowDown")
        bucket, _, key = request.path.strip("/").partition("/")
        if not key:
            return self._handle_bucket(request, bucket)
        if bucket not in self.buckets:
            return _error(404, "NoSuchBucket")
        if "uploads" in request.query or "uploadId" in request.query:
            return self._handle_upload(request, bucket, key, body)
        return await self._handle_object(request, self.buckets[bucket], key, body)

    def _handle_bucket(self, request: web.Request, name: str) -> web.Response:
        if request.method == "PUT":
            self.buckets.setdefault(name, {})
            return web.Response()
        if name not in self.buckets:
            return _error(404, "NoSuchBucket")
        query = request.query
        matching = sorted(key for key in self.buckets[name] if key.startswith(query.get("prefix", "")))
        start = int(query.get("continuation-token", "0"))
        end = start + int(query.get("max-keys", "1000"))
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.buckets[name][key])}</Size></Contents>"
            for key in matching[start:end]
        )
        more = end < len(matching)
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        page = (
            f"<KeyCount>{len(matching[start:end])}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        )
        return _xml("ListBucketResult", page + token + contents)

    def _handle_upload(self, request: web.Request, bucket: str, key: str, body: bytes) -> web.Response:
        if "uploads" in request.query:
            upload = str(next(self._upload_numbers))
            self.uploads[upload] = {}
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        parts = self.uploads.get(request.query["uploadId"])
        if parts is None:
            return _error(404, "NoSuchUpload")
        if request.method == "PUT":
            parts[int(request.query["partNumber"])] = body
            return web.Response(headers={"ETag": _etag(body)})
        del self.uploads[request.query["uploadId"]]
        if request.method == "DELETE":
            return web.Response(status=204)
        wanted = [
            (int(part.findtext("{*}PartNumber", "")), part.findtext("{*}ETag", ""))
            for part in ElementTree.fromstring(body).iter("{http://s3.amazonaws.com/doc/2006-03-01/}Part")
        ]
        if any(_etag(parts[number]) != etag for number, etag in wanted):
            return _error(400, "InvalidPart")
        whole = b"".join(parts[number] for number, _ in wanted)
        self.buckets[bucket][key] = whole
        return _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>{_etag(whole)}</ETag>")

    async def _handle_object(
        self, request: web.Request, objects: dict[str, bytes], key: str, body: bytes
    ) -> web.StreamResponse:
        if request.method == "PUT":
            objects[key] = body
            return web.Response(headers={"ETag": _etag(body)})
        if request.method == "DELETE":
            objects.pop(key, None)
            return web.Response(status=204)
        if key not in objects:
            return _error(404, "NoSuchKey")
        data = objects[key]
        span = request.http_range
        part = data[span]
        headers = {"ETag": _etag(data), "Content-Length": str(len(part))}
        response = web.StreamResponse(status=200 if span == slice(None, None, 1) else 206, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            for start in range(0, len(part), PIECE):
                if key in self.hold and start >= len(part) // 2:
                    await asyncio.Event().wait()
                await response.write(part[start : start + PIECE])
        finally:
            if key in self.hold:
                self.held_request_ended.set()
        return response


@asynccontextmanager
async def s3_stand_in() -> AsyncIterator[tuple[StandIn, str]]:
    """Serve on the running loop; yield the stand-in and its address."""
    stand_in = StandIn()
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", stand_in.handle)
    # A client that goes away ends the request that was made for it.
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield stand_in, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _payload(request: web.Request) -> bytes:
    body = await request.read()
    if not request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
        return body
    # "aws-chunked": size in hexadecimal, data, ..., size 0, then checksums.
    parts = []
    position = 0
    while True:
        end = body.index(b"\r\n", position)
        size = int(body[position:end].split(b";")[0], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        position = end + 2 + size + 2


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _xml(name: str, content: str, status: int = 200) -> web.Response:
    text = f'<?xml version="1.0"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{name}>'
    return web.Response(status=status, text=text, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")
