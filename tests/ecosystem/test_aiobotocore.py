"""aiobotocore against a local stand-in for S3: objects, lists, multipart uploads, streams, a busy service."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

session_module = pytest.importorskip(
    "aiobotocore.session", reason="aiobotocore cannot be had for this Python"
)
pytest.importorskip("aiohttp", reason="aiohttp, which serves the stand-in, cannot be had for this Python")
from aiobotocore.config import AioConfig  # noqa: E402
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError  # noqa: E402
from peers import unused_port  # noqa: E402
from s3_stand_in import StandIn, s3_stand_in  # noqa: E402

PART = bytes(range(256)) * (5 << 12)  # 5 MiB, the smallest part that S3 takes


def new_client(address: str, **options: Any) -> Any:
    return session_module.get_session().create_client(
        "s3",
        endpoint_url=address,
        region_name="eu-central-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=AioConfig(s3={"addressing_style": "path"}, **options),
    )


@asynccontextmanager
async def storage(**options: Any) -> AsyncIterator[tuple[Any, StandIn]]:
    """Make a client and an empty bucket."""
    async with s3_stand_in() as (stand_in, address), new_client(address, **options) as client:
        await client.create_bucket(
            Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        yield client, stand_in


async def test_objects_come_and_go(loop: asyncio.AbstractEventLoop) -> None:
    async with storage() as (client, _):
        put = await client.put_object(Bucket="bucket", Key="docs/größe.txt", Body=b"hello")
        assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
        answer = await client.get_object(Bucket="bucket", Key="docs/größe.txt")
        async with answer["Body"] as body:
            assert await body.read() == b"hello"
        assert (await client.head_object(Bucket="bucket", Key="docs/größe.txt"))["ContentLength"] == 5
        part = await client.get_object(Bucket="bucket", Key="docs/größe.txt", Range="bytes=1-3")
        async with part["Body"] as body:
            assert await body.read() == b"ell"
        await client.delete_object(Bucket="bucket", Key="docs/größe.txt")
        with pytest.raises(client.exceptions.NoSuchKey):
            await client.get_object(Bucket="bucket", Key="docs/größe.txt")


async def test_many_at_once_listed_page_by_page(loop: asyncio.AbstractEventLoop) -> None:
    async with storage(max_pool_connections=8) as (client, _):
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                body = str(number).encode() * 100
                group.create_task(client.put_object(Bucket="bucket", Key=f"n/{number:03}", Body=body))
            group.create_task(client.put_object(Bucket="bucket", Key="other", Body=b""))
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket="bucket", Prefix="n/", PaginationConfig={"PageSize": 25}
        )
        listed = [[entry["Key"] for entry in page["Contents"]] async for page in pages]
        assert [len(page) for page in listed] == [25, 25, 10]
        assert [key for page in listed for key in page] == [f"n/{number:03}" for number in range(60)]

        async def read(number: int) -> bytes:
            answer = await client.get_object(Bucket="bucket", Key=f"n/{number:03}")
            async with answer["Body"] as body:
                return await body.read()

        assert await asyncio.gather(*map(read, range(60))) == [str(n).encode() * 100 for n in range(60)]


async def test_a_multipart_upload_streams_back(loop: asyncio.AbstractEventLoop) -> None:
    async with storage() as (client, stand_in):
        target = {"Bucket": "bucket", "Key": "big"}
        upload = {**target, "UploadId": (await client.create_multipart_upload(**target))["UploadId"]}

        async def send(number: int) -> dict[str, Any]:
            body = io.BytesIO(PART[number:] + PART[:number])
            sent = await client.upload_part(**upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        parts = await asyncio.gather(*(send(number) for number in range(1, 5)))
        await client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        expected = hashlib.sha256()
        for number in range(1, 5):
            expected.update(PART[number:] + PART[:number])

        seen = hashlib.sha256()
        answer = await client.get_object(**target)
        assert answer["ContentLength"] == 4 * len(PART)
        async with answer["Body"] as body:
            async for chunk in body.iter_chunks(1 << 16):
                seen.update(chunk)
        assert seen.digest() == expected.digest()

        abandoned = await client.create_multipart_upload(**target)
        await client.abort_multipart_upload(**target, UploadId=abandoned["UploadId"])
        assert not stand_in.uploads


async def test_a_busy_service_is_asked_again(loop: asyncio.AbstractEventLoop) -> None:
    async with storage(retries={"mode": "standard", "max_attempts": 3}) as (client, stand_in):
        stand_in.refuse_next = 1
        put = await client.put_object(Bucket="bucket", Key="key", Body=io.BytesIO(b"kept"))
        assert put["ResponseMetadata"]["RetryAttempts"] == 1
        assert stand_in.buckets["bucket"]["key"] == b"kept"
    async with storage(retries={"max_attempts": 0}) as (client, stand_in):
        stand_in.refuse_next = 1
        with pytest.raises(ClientError, match="SlowDown"):
            await client.put_object(Bucket="bucket", Key="key", Body=b"lost")


async def test_a_download_that_stalls(loop: asyncio.AbstractEventLoop) -> None:
    async with storage(read_timeout=0.5, retries={"max_attempts": 0}) as (client, stand_in):
        stand_in.buckets["bucket"]["stalls"] = PART
        stand_in.hold.add("stalls")
        answer = await client.get_object(Bucket="bucket", Key="stalls")
        with pytest.raises(ReadTimeoutError):
            await answer["Body"].read()
        answer["Body"].close()
        await stand_in.held_request_ended.wait()

    async with storage() as (client, stand_in):
        stand_in.buckets["bucket"]["stalls"] = PART
        stand_in.hold.add("stalls")
        half_read = asyncio.Event()

        async def download() -> None:
            answer = await client.get_object(Bucket="bucket", Key="stalls")
            async with answer["Body"] as body:
                assert await body.read(len(PART) // 4)
                half_read.set()
                await body.read()

        task = asyncio.create_task(download())
        await half_read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stand_in.held_request_ended.wait()
        assert (await client.list_objects_v2(Bucket="bucket"))["KeyCount"] == 1


async def test_nobody_listens(loop: asyncio.AbstractEventLoop) -> None:
    async with new_client(f"http://127.0.0.1:{unused_port()}", retries={"max_attempts": 0}) as client:
        with pytest.raises(EndpointConnectionError):
            await client.list_objects_v2(Bucket="bucket")
