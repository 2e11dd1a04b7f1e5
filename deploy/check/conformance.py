"""Write the DICOM conformance statement from the program's own tables: `python -m deploy.check.conformance`.

What is negotiated, matched, answered and bounded is read from the parts that do it; a test compares the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pydicom
import pynetdicom
from pydicom.uid import UID
from pynetdicom import sop_class

from deploy.check.facts import Facts, gather
from deploy.check.page import DEPLOY, page, table, write
from gateway.config import Settings
from gateway.errors import RefusedError
from gateway.query.attributes import ATTRIBUTES, LEVELS
from gateway.query_retrieve.model import MODELS
from gateway.report.identity import _IMPLEMENTATION_UID as RESULT_IMPLEMENTATION
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from gateway.web.dicomweb.negotiation import DATA_SET_TYPES

PAGE = DEPLOY / "conformance.md"
_BOUNDS = (
    ("max_associations", "associations at once; further ones are rejected, local limit exceeded"),
    ("max_pdu_bytes", "largest PDU, bytes"),
    ("association_timeout_s", "negotiation, and a DIMSE message once begun, seconds"),
    ("idle_timeout_s", "silent association, then A-ABORT, seconds"),
    ("max_instance_mib", "largest instance, MiB"),
    ("find_limit", "answers to one C-FIND, then A700"),
    ("delivery_timeout_s", "each step as SCU, seconds"),
)
_RESULTS = (
    ("1.2.840.10008.5.1.4.1.1.88.34", "findings and measurements, TID 1500"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "segments"),
    ("1.2.840.10008.5.1.4.1.1.7", "heat maps"),
    ("1.2.840.10008.5.1.4.1.1.88.59", "rejection notes (IOCM)"),
)


def statement() -> str:
    """Return the page."""
    return page(_lines(gather()))


def _lines(facts: Facts) -> Iterator[str]:
    settings = Settings.model_construct(**{name: field.default for name, field in Settings.model_fields.items()})
    yield "# DICOM Conformance Statement"
    yield ""
    yield "After PS3.2. Made by `python -m deploy.check.conformance` from the program itself: edit that, not this page."
    yield ""
    yield "## Overview"
    yield ""
    yield "One application entity receives any storage object, answers queries and retrievals, commits storage, offers"
    yield "its jobs as Unified Procedure Steps, and sends results to the destinations that are configured."
    yield ""
    yield from table(
        ("item", "value"),
        [
            ("AE title", f"{settings.ae_title}, configurable; other called AE titles are rejected"),
            (
                "Implementation Class UID",
                f"`{IMPLEMENTATION_CLASS_UID}`; of objects we make: `{RESULT_IMPLEMENTATION}`",
            ),
            ("Implementation Version Name", IMPLEMENTATION_VERSION),
            ("Application context", "`1.2.840.10008.3.1.1.1`"),
            ("Asynchronous operations", "not negotiated"),
            ("Character sets", "all of PS3.3 C.12.1.1.2 are read; answers in ISO_IR 192"),
        ],
    )
    yield ""
    yield "## Services as SCP"
    yield ""
    yield from _services(facts.scp)
    yield ""
    yield "## Storage as SCU"
    yield ""
    yield "Results go out in Explicit VR Little Endian, or Implicit VR Little Endian where a peer takes nothing else."
    yield ""
    yield from table(("SOP class", "UID", "holds"), [(UID(uid).name, f"`{uid}`", holds) for uid, holds in _RESULTS])
    yield ""
    yield "C-MOVE sub-operations use the transfer syntax of the stored object, or an uncompressed one. None goes"
    yield "to the AE title of a destination that gets results de-identified (PS3.15 E): A801."
    yield ""
    yield "## Status codes of C-STORE"
    yield ""
    yield from table(
        ("status", "meaning"), [("0000", "on disk (fsync) and indexed, or indexed at the next start"), *_refusals()]
    )
    yield ""
    yield "## Query keys"
    yield ""
    for model in MODELS:
        yield f"- {UID(model.find).name}: levels {', '.join(model.levels)}; relational queries where negotiated"
    yield ""
    rows = [
        (
            level,
            f"({one.tag >> 16:04X},{one.tag & 0xFFFF:04X})",
            one.keyword,
            one.vr,
            "match" if one.is_key else "return",
        )
        for level in LEVELS
        for one in ATTRIBUTES
        if one.level == level
    ]
    yield from table(("level", "tag", "attribute", "VR", "use"), rows)
    yield ""
    yield from _web(facts.web)
    yield "## Bounds"
    yield ""
    defaults = [(f"`{name}`", str(getattr(settings, name)), text) for name, text in _BOUNDS]
    yield from table(("setting", "default", "bounds"), defaults)
    yield ""
    yield "## Security"
    yield ""
    yield "TLS by the Secure Transport Connection Profiles of PS3.15 (BCP 195), `[dicom_tls]`; calling AE titles by"
    yield "list, with rights for storage, query, retrieve, commitment and workitems; audit trail by PS3.15 A.5,"
    yield "`[audit]`."


def _web(resources: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "## Web services (PS3.18)"
    yield ""
    yield "Below `/dicomweb` of the HTTP port. Data sets as " + ", ".join(f"`{each}`" for each in DATA_SET_TYPES) + ";"
    yield "objects as `application/dicom`, whole or by `multipart/related`. DELETE is this gateway's own: it rejects"
    yield "what it names (IOCM), and the files stay."
    yield ""
    yield from table(("resource", "methods"), ((f"`{path}`", ", ".join(found)) for path, found in resources.items()))
    yield ""


def _services(supported: Mapping[str, Sequence[str]]) -> Iterator[str]:
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for uid, syntaxes in supported.items():
        groups[tuple(syntaxes)].append(uid)
    for number, (syntaxes, classes) in enumerate(sorted(groups.items(), key=lambda each: -len(each[1])), start=1):
        yield f"### Group {number}: {len(classes)} SOP classes"
        yield ""
        yield "Transfer syntaxes: " + "; ".join(f"{UID(uid).name} (`{uid}`)" for uid in syntaxes) + "."
        yield ""
        yield from table(("SOP class", "UID"), sorted((_name(uid), f"`{uid}`") for uid in classes))
        yield ""
    yield f"Names by the dictionaries of pydicom {pydicom.__version__} and pynetdicom {pynetdicom.__version__}."


def _name(uid: str) -> str:
    """Return a UID's name; some stand in pynetdicom's tables and not yet in pydicom's."""
    keywords = (keyword for keyword, value in vars(sop_class).items() if value == uid)
    return UID(uid).name if UID(uid).name != uid else next(keywords, uid)


def _refusals() -> list[tuple[str, str]]:
    kinds = [kind for kind in RefusedError.__subclasses__() if kind.__module__ == RefusedError.__module__]
    return sorted((f"{kind.status:04X}", (kind.__doc__ or "").splitlines()[0]) for kind in kinds)


def main() -> None:
    """Write the page."""
    write(PAGE, statement())


if __name__ == "__main__":
    main()
