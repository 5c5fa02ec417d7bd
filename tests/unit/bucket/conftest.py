"""One bucket of each kind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mimir_ingest.bucket.store import Bucket

CREDENTIALS = {"access_key_id": "test-id", "secret_access_key": "test-secret"}


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """`host:port` of an S3 that moto plays, with the bucket `blocks`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="eu-west-1",
        aws_access_key_id=CREDENTIALS["access_key_id"],
        aws_secret_access_key=CREDENTIALS["secret_access_key"],
    )
    client.create_bucket(Bucket="blocks", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield f"{host}:{port}"
    server.stop()


def open_s3(endpoint: str, prefix: str, bucket: str = "blocks") -> Bucket:
    """Return a prefix in the bucket of `s3_endpoint`."""
    return Bucket(f"s3://{bucket}/{prefix}", endpoint=endpoint, region="eu-west-1", insecure=True, **CREDENTIALS)


@pytest.fixture(params=["local", "memory", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket."""
    if request.param == "local":
        return Bucket(str(tmp_path / "bucket"))
    if request.param == "memory":
        return Bucket(f"memory://{uuid.uuid4()}")
    return open_s3(request.getfixturevalue("s3_endpoint"), uuid.uuid4().hex)
