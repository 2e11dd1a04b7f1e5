"""The tables `[[peers]]`: whom we know, from where, and what they may do."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.config.address import AETitle

Right = Literal["store", "query", "retrieve", "commit", "workitem"]
SENDER: tuple[Right, ...] = ("store", "commit")
"""What a title may ask for that stands in `allowed_aes` alone."""
_ALL: tuple[Right, ...] = ("store", "query", "retrieve", "commit", "workitem")


class Peer(BaseModel):
    """One calling AE title. Where any is named, no other may associate but those of `allowed_aes`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ae_title: AETitle
    """Calling AE title."""
    addresses: tuple[str, ...] = ()
    """Addresses or networks (`10.0.0.7`, `10.1.0.0/16`) it may come from; empty: any."""
    may: tuple[Right, ...] = _ALL
    """What it may ask for; everybody may verify (C-ECHO). The title of a destination with `deidentify` may store and
    ask for commitment at most: whatever else is answered names patients."""
    max_associations: Annotated[int, Field(ge=1)] | None = None
    """At once, on this host, from each address: who borrows the title elsewhere takes none of its owner's places.
    Further ones are rejected as 'local limit exceeded'. Unset: only the limit that holds for all."""
    max_instances_per_s: Annotated[float, Field(gt=0)] | None = None
    """Instances per second, on this host; a faster sender waits for its answers. Unset: no limit."""

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise ValueError(f"{text!r} is no address and no network: {error}") from None
        return value

    def comes_from(self, address: str) -> bool:
        """Say whether an address is one of its own."""
        if not self.addresses:
            return True
        try:
            here = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(here, ipaddress.IPv6Address) and here.ipv4_mapped is not None:
            here = here.ipv4_mapped
        return any(here in ipaddress.ip_network(each, strict=False) for each in self.addresses)
