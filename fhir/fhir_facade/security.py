"""CapabilityStatement.rest.security: how callers prove who they are."""

from __future__ import annotations

from fhir_facade.resource import Json

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SERVICES = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def security(*, token_url: str = "", has_cors: bool = False) -> Json:
    """Return how callers are known.

    Parameters
    ----------
    token_url
        Where registered clients get their tokens; empty: nowhere, tokens are given out by hand or by a provider.
    has_cors
        Whether scripts of other sites may call.
    """
    content: Json = {
        "cors": has_cors,
        "description": "Bearer tokens: of this gateway, of the hospital's OpenID Connect provider, or of SMART Backend "
        "Services (private_key_jwt with RS384 or ES384), whichever are switched on.",
    }
    if token_url:
        uris = {"url": _OAUTH_URIS, "extension": [{"url": "token", "valueUri": token_url}]}
        content |= {"extension": [uris], "service": [{"coding": [{"system": _SERVICES, "code": "SMART-on-FHIR"}]}]}
    return content
