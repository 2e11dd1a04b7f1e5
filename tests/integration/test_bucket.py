"""Files in a bucket: a real S3 server over HTTP, asked by another client too."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from gateway.config.s3 import S3
from gateway.errors import FilesAwayError
from gateway.store.bucket import Bucket
from gateway.store.files import Files
from tests.services.process import free_port
from tests.services.s3 import BUCKET, S3Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give a started S3 server."""
    started = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        started.start()
        yield started
    finally:
        started.close()


@pytest.fixture
def bucket(server: S3Server) -> Bucket:
    """Give the bucket as the gateway opens it."""
    return open_bucket(server.url)


def test_what_one_host_keeps_another_reads(bucket: Bucket, tmp_path: Path) -> None:
    """Two data folders, one bucket: whole in one, fetched in ranges by the other, the digest the same."""
    content = os.urandom((8 << 20) + 12345)  # in parts
    here, there = Files(tmp_path / "a", bucket), Files(tmp_path / "b", bucket)
    write(tmp_path / "a/instances/x.dcm", content)
    here.keep(["instances/x.dcm"])

    fetched = there.local("instances/x.dcm")

    assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert bucket.read_range("instances/x.dcm", 8 << 20, (8 << 20) + 16) == content[8 << 20 :][:16]
    assert there.size("instances/x.dcm") == len(content)


def test_another_client_finds_the_object_with_its_digest(server: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """boto3 reads the same bytes under the prefix, with the SHA-256 beside them."""
    write(tmp_path / "results/one.dcm", b"a result")
    Files(tmp_path, bucket).keep(["results/one.dcm"])
    client = boto3.client("s3", endpoint_url=server.url, **CREDENTIALS)

    found = client.get_object(Bucket=BUCKET, Key="hybridmed/results/one.dcm")

    assert found["Body"].read() == b"a result"
    assert found["Metadata"]["sha256"] == hashlib.sha256(b"a result").hexdigest()


def test_bytes_that_changed_in_the_bucket_are_not_taken(server: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """The digest that was put decides; nothing is left on disk under the name."""
    write(tmp_path / "a/instances/y.dcm", b"original")
    Files(tmp_path / "a", bucket).keep(["instances/y.dcm"])
    client = boto3.client("s3", endpoint_url=server.url, **CREDENTIALS)
    key = "hybridmed/instances/y.dcm"
    metadata = client.head_object(Bucket=BUCKET, Key=key)["Metadata"]
    client.put_object(Bucket=BUCKET, Key=key, Body=b"tampered", Metadata=metadata)

    with pytest.raises(FilesAwayError, match="other bytes"):
        Files(tmp_path / "b", bucket).local("instances/y.dcm")
    assert [path for path in (tmp_path / "b").rglob("*") if path.is_file()] == []


def test_copies_go_and_come_again_but_only_where_the_bucket_has_them(bucket: Bucket, tmp_path: Path) -> None:
    """Trimming leaves what was never put; a removed file is gone everywhere."""
    files = Files(tmp_path, bucket, cache_gib=0)
    write(tmp_path / "instances/kept.dcm", b"kept")
    write(tmp_path / "instances/never-put.dcm", b"mine alone")
    files.keep(["instances/kept.dcm"])

    removed = files.trim(recent_s=0)
    after = sorted(path.name for path in (tmp_path / "instances").iterdir())
    again = files.local("instances/kept.dcm").read_bytes()
    files.remove("instances/kept.dcm")

    assert (removed, after, again) == (1, ["never-put.dcm"], b"kept")
    assert files.size("instances/kept.dcm") is None
    assert not files.local("instances/kept.dcm").exists()


def test_a_copy_that_goes_meanwhile_is_no_fault(bucket: Bucket, tmp_path: Path) -> None:
    """Processes of one host trim one folder: a name whose file has just gone is passed over."""
    files = Files(tmp_path, bucket, cache_gib=0)
    write(tmp_path / "instances/last.dcm", b"last")
    files.keep(["instances/last.dcm"])
    (tmp_path / "instances/gone.dcm").symlink_to(tmp_path / "nowhere")  # its stat() answers as that of a removed file

    assert files.trim(recent_s=0) == 1


def test_a_bucket_that_is_away_says_so(tmp_path: Path) -> None:
    """Nothing listens: FilesAwayError, which passes, and no word of an address or a key."""
    files = Files(tmp_path, open_bucket(f"http://127.0.0.1:{free_port()}"))
    write(tmp_path / "instances/z.dcm", b"z")

    with pytest.raises(FilesAwayError) as caught:
        files.keep(["instances/z.dcm"])
    assert "127.0.0.1" not in str(caught.value)
    assert caught.value.may_pass


CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


def open_bucket(url: str) -> Bucket:
    """Open the test's bucket at an address."""
    section = {"bucket": BUCKET, "endpoint": url, "access_key_id": "test", "secret_access_key": "test", "timeout_s": 60}
    return Bucket(S3.model_validate(section))


def write(path: Path, content: bytes) -> None:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
