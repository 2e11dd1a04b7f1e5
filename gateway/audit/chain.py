"""The hash chain: each line's hash covers its body and the hash of the line before."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ConfigurationError

BEGINNING = "0" * 64
"""What stands for the hash before the first line."""
_LEAST_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ChainKey:
    """How lines are hashed: HMAC-SHA-256 with a secret, or plain SHA-256 without one."""

    secret: bytes | None = None

    def hash(self, previous: str, body: str) -> str:
        """Return the hash of a line."""
        return self._digest(b"line", previous, body)

    def seal(self, position: int, last_hash: str) -> str:
        """Return the seal of the head, so that lines missing at the end are noticed."""
        return self._digest(b"head", str(position), last_hash)

    def _digest(self, purpose: bytes, *parts: str) -> str:
        message = b"\0".join((purpose, *(part.encode("utf-8", "surrogatepass") for part in parts)))
        if self.secret is None:
            return hashlib.sha256(message).hexdigest()
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()


def load_key(path: Path | None) -> ChainKey:
    """Read the secret from its file; ConfigurationError where there is none, or a short one."""
    if path is None:
        return ChainKey()
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"audit.chain_key_file {path}: {error.strerror}") from error
    if len(secret) < _LEAST_KEY_BYTES:
        raise ConfigurationError(f"audit.chain_key_file {path}: at least {_LEAST_KEY_BYTES} bytes are needed")
    return ChainKey(secret)
