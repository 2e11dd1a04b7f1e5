"""An S3 bucket: files put whole and checked, read back by range. Loads obstore, of the extra `grown`."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from gateway.config.s3 import S3
from gateway.errors import FilesAwayError

_PART_BYTES = 8 << 20
"""Files above are put in parts; all are fetched in ranges of so much, so that a broken connection costs one range."""
_DIGEST = "sha256"
_RETRIES = 4


class Bucket:
    """Files under their paths relative to the data folder.

    Parameters
    ----------
    section
        Of the settings; `bucket` is set.
    """

    def __init__(self, section: S3) -> None:
        self._prefix = section.prefix.strip("/")
        timeout = timedelta(seconds=section.timeout_s)
        is_plain = (section.endpoint or "").startswith("http://")
        self._store = S3Store(
            section.bucket or "",
            config={"region": section.region, "checksum_algorithm": "SHA256", **_identity(section)},  # type: ignore[arg-type] # its TypedDict knows no part of it
            client_options={"timeout": timeout, "connect_timeout": timedelta(seconds=5), "allow_http": is_plain},
            retry_config={"max_retries": _RETRIES, "retry_timeout": 2 * timeout},
        )

    def put(self, path: str, source: Path) -> None:
        """Put a file with its SHA-256, which the server checks part by part; FilesAwayError where it is not kept.

        The same path always means the same bytes: putting twice is harmless.
        """
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            try:
                obstore.put(
                    self._store,
                    self._key(path),
                    file,
                    attributes={_DIGEST: digest},
                    use_multipart=source.stat().st_size > _PART_BYTES,
                    chunk_size=_PART_BYTES,
                )
            except (BaseError, OSError) as error:
                raise FilesAwayError(f"the bucket did not take a file: {type(error).__name__}") from error

    def size(self, path: str) -> int | None:
        """Return how many bytes an object holds; None where there is none."""
        try:
            return int(obstore.head(self._store, self._key(path))["size"])
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise FilesAwayError(f"the bucket does not answer: {type(error).__name__}") from error

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to `end`; FileNotFoundError, FilesAwayError."""
        try:
            return bytes(obstore.get_range(self._store, self._key(path), start=start, end=end))
        except (NotFoundError, FileNotFoundError):
            raise FileNotFoundError(path) from None
        except (BaseError, OSError) as error:
            raise FilesAwayError(f"the bucket does not answer: {type(error).__name__}") from error

    def fetch(self, path: str, target: Path) -> None:
        """Bring a file, range by range, and check its digest before it gets its name.

        Raises
        ------
        FileNotFoundError
            There is no such object.
        FilesAwayError
            The bucket does not answer, or what it gave is not what was put.
        """
        size, expected = self._facts(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        digest = hashlib.sha256()
        try:
            with partial.open("xb") as file:
                for start in range(0, size, _PART_BYTES):
                    piece = self.read_range(path, start, min(start + _PART_BYTES, size))
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if expected is not None and digest.hexdigest() != expected:
                raise FilesAwayError("the bucket gave other bytes than were put")
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        """Remove an object; none is well too."""
        try:
            obstore.delete(self._store, self._key(path))
        except (NotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise FilesAwayError(f"the bucket does not answer: {type(error).__name__}") from error

    def _facts(self, path: str) -> tuple[int, str | None]:
        """Return size and SHA-256 of an object."""
        try:
            found = obstore.get(self._store, self._key(path), options={"head": True})
        except (NotFoundError, FileNotFoundError):
            raise FileNotFoundError(path) from None
        except (BaseError, OSError) as error:
            raise FilesAwayError(f"the bucket does not answer: {type(error).__name__}") from error
        attributes: Mapping[Any, Any] = found.attributes
        return int(found.meta["size"]), attributes.get(_DIGEST)

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path


def _identity(section: S3) -> dict[str, str]:
    found: dict[str, str] = {}
    if section.endpoint is not None:
        found["endpoint"] = section.endpoint
    if section.access_key_id is not None:
        found["access_key_id"] = section.access_key_id
    secret = section.secret_access_key.get_secret_value() if section.secret_access_key is not None else None
    if section.secret_access_key_file is not None:
        secret = section.secret_access_key_file.read_text(encoding="utf-8").strip()
    if secret is not None:
        found["secret_access_key"] = secret
    return found
