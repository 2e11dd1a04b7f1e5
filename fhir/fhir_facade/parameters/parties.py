"""What may be asked of persons, organisations and machines: Patient, Practitioner, Organization, Device, Endpoint."""

from __future__ import annotations

from fhir_facade.parameters.parameter import Parameter, date, reference, string, token, uri

_FHIR = "http://hl7.org/fhir/"
_BOOLEAN = "http://hl7.org/fhir/special-values"
_PERSON_ADDRESS = "individual-"


def _address(definition: str) -> tuple[Parameter, ...]:
    """Return the parameters of postal addresses.

    Parameters
    ----------
    definition
        How the ids of their SearchParameters begin.
    """
    return (
        string("address", "address", f"{definition}address"),
        string("address-city", "address.city", f"{definition}address-city"),
        string("address-country", "address.country", f"{definition}address-country"),
        string("address-postalcode", "address.postalCode", f"{definition}address-postalcode"),
        string("address-state", "address.state", f"{definition}address-state"),
        token("address-use", "address.use", f"{definition}address-use", system=_FHIR + "address-use"),
    )


def _person() -> tuple[Parameter, ...]:
    return (
        token("identifier", "identifier"),
        token("active", "active", system=_BOOLEAN),
        string("name", "name"),
        string("family", "name.family", "individual-family"),
        string("given", "name.given", "individual-given"),
        token("gender", "gender", "individual-gender", system=_FHIR + "administrative-gender"),
        token("telecom", "telecom", "individual-telecom"),
        token("phone", "telecom[phone]", "individual-phone"),
        token("email", "telecom[email]", "individual-email"),
        *_address(_PERSON_ADDRESS),
    )


PATIENT = (
    *_person(),
    date("birthdate", "birthDate", "individual-birthdate"),
    date("death-date", "deceasedDateTime"),
    token("language", "communication.language"),
    reference("general-practitioner", "generalPractitioner", "Practitioner", "PractitionerRole", "Organization"),
    reference("link", "link.other", "Patient", "RelatedPerson"),
    reference("organization", "managingOrganization", "Organization"),
)
PRACTITIONER = (*_person(), token("communication", "communication"))
ORGANIZATION = (
    token("identifier", "identifier"),
    token("active", "active", system=_BOOLEAN),
    string("name", "name | alias"),
    token("type", "type"),
    reference("partof", "partOf", "Organization"),
    reference("endpoint", "endpoint", "Endpoint"),
    *_address("Organization-"),
)
DEVICE = (
    token("identifier", "identifier"),
    string("device-name", "deviceName.name | type.coding.display | type.text"),
    string("manufacturer", "manufacturer"),
    string("model", "modelNumber"),
    token("status", "status", system=_FHIR + "device-status"),
    token("type", "type"),
    uri("url", "url"),
    reference("patient", "patient", "Patient"),
    reference("organization", "owner", "Organization"),
    reference("location", "location", "Location"),
)
ENDPOINT = (
    token("identifier", "identifier"),
    string("name", "name"),
    token("status", "status", system=_FHIR + "endpoint-status"),
    token("connection-type", "connectionType"),
    token("payload-type", "payloadType"),
    reference("organization", "managingOrganization", "Organization"),
)
