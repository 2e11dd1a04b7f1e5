"""An S3 server of our own: moto's, which keeps objects in memory and answers as Amazon's does."""

import sys
from pathlib import Path

import httpx

from tests.services.process import HANGS_S, HERE, Place, Program, free_port

BUCKET = "images"
ACCOUNT = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
"""What boto3 needs to know."""


class S3Server:
    """A started server with an empty bucket."""

    def __init__(self, folder: Path, place: Place = HERE) -> None:
        self.port = free_port()
        self._address = place.address
        program = str(Path(sys.executable).parent / "moto_server")
        argv = [*place.prefix, program, "-H", place.address, "-p", str(self.port)]
        self._program = Program(argv, log=folder / "s3.log", env={}, cwd=folder)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._address}:{self.port}"

    def start(self) -> None:
        """Start it and make the bucket."""
        self._program.start()
        self._program.wait_ready(self._answers, HANGS_S)
        httpx.put(f"{self.url}/{BUCKET}", timeout=60, trust_env=False).raise_for_status()

    def close(self) -> None:
        """End it; what it held is gone."""
        self._program.kill()

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, timeout=10, trust_env=False).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        except httpx.HTTPError:
            return False


def settings_of(server: S3Server) -> dict[str, str]:
    """Return the environment of a gateway that keeps its files there."""
    return {
        "HYBRIDMED_S3__BUCKET": BUCKET,
        "HYBRIDMED_S3__ENDPOINT": server.url,
        "HYBRIDMED_S3__ACCESS_KEY_ID": ACCOUNT["aws_access_key_id"],
        "HYBRIDMED_S3__SECRET_ACCESS_KEY": ACCOUNT["aws_secret_access_key"],
    }
