"""Which addresses subscribers may have told: whoever subscribes makes this gateway send requests (SSRF)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from gateway.config.address import is_loopback

_LONGEST = 2048
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class AllowedEndpoints:
    """The rule.

    Parameters
    ----------
    prefixes
        `https://host/path`: what begins so is allowed, path by whole segments.
    with_loopback
        Whether this machine itself may be told, by http too.
    without_patient
        Addresses of destinations that get reports without the patient: what begins so is never told.
    """

    prefixes: Sequence[str]
    with_loopback: bool
    without_patient: Sequence[str] = ()

    def refusal(self, url: str) -> str | None:
        """Return why an address may not be told, None where it may."""
        parts = _parts(url)
        if parts is None or parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
            return "the endpoint takes http:// or https://, a host, and no user in it"
        if parts.fragment or ".." in parts.path.split("/") or "%2e" in parts.path.lower():
            return "the endpoint has a fragment, or dots in its path"
        if any(_begins(parts, urlsplit(prefix)) for prefix in self.without_patient):
            return "the endpoint is a destination that gets reports without the patient"
        # By its very name: other names are not looked up, since what they lead to may change.
        if self.with_loopback and is_loopback(parts.hostname):
            return None
        if any(_begins(parts, urlsplit(prefix)) for prefix in self.prefixes):
            return None
        return "the endpoint is not among those that this server may tell (setting exchange.hooks)"


def _parts(url: str) -> SplitResult | None:
    if len(url) > _LONGEST or not url.isascii() or any(char.isspace() or char == "\\" for char in url):
        return None
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts
    except ValueError:
        return None


def _begins(url: SplitResult, prefix: SplitResult) -> bool:
    same = (url.scheme, url.hostname, url.port or _PORTS[url.scheme]) == (
        prefix.scheme,
        prefix.hostname,
        prefix.port or _PORTS.get(prefix.scheme),
    )
    folder = prefix.path.rstrip("/")
    return same and (url.path == folder or url.path.startswith(f"{folder}/") or not folder)
