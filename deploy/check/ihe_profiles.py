"""What the IHE integration statement says of each profile; `ihe.py` holds it against the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.config.audit import _SCHEMES as SYSLOG
from gateway.config.settings import Settings
from gateway.report.content import PROBABILITY
from gateway.report.equipment import _PROCESSING_ALGORITHM as PURPOSE
from gateway.report.figures import EPISTEMIC, UNCERTAINTY
from gateway.report.groups import _NOT_EVALUATED as NOT_EVALUATED
from gateway.report.identity import _TITLE as TITLE
from gateway.report.identity import RenderOptions
from gateway.tls import _CIPHERS as CIPHERS
from gateway.workitem.dimse import PULL, QUERY, WATCH
from gateway.workitem.mapping import UPS_PUSH
from gateway.workitem.state import _PRIORITIES as PRIORITIES
from gateway.workitem.state import READY

SR, SEG = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4"
COMMITMENT = "1.2.840.10008.1.20.1"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
_STUDY = "/studies/{study}"
_WORKITEM = "/workitems/{workitem}"
_SUBSCRIBER = f"{_WORKITEM}/subscribers/{{subscriber}}"
_LEASE_S: Final = Settings.model_fields["workitem_lease_s"].default


@dataclass(frozen=True, slots=True)
class Transaction:
    """A row of an actor's table."""

    name: str
    part: str
    done_by: str
    needs: tuple[str, ...] = ()
    """What the program must have for this row to be true."""
    short: str = ""
    lacks: tuple[str, ...] = ()
    """What it must not have for `short` to be true."""


@dataclass(frozen=True, slots=True)
class Actor:
    """What one actor does."""

    name: str
    state: str
    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile, and what of it is and is not claimed."""

    name: str
    actors: tuple[Actor, ...]
    options: str
    not_claimed: str


AIR: Final = Profile(
    "AI Results (AIR)",
    (
        Actor(
            "Evidence Creator",
            "in part",
            (
                Transaction(
                    "Evidence documents stored [RAD-43]",
                    "initiator",
                    "C-STORE of Comprehensive 3D SR to each destination, with back-off",
                    (f"scp {SR}", "destination dicom", "module report/sr.py", "module delivery/dimse.py"),
                ),
                Transaction(
                    "Creator Images Stored [RAD-18]",
                    "initiator",
                    "C-STORE of Segmentation, and of heat maps as Secondary Capture",
                    (f"scp {SEG}", "destination dicom", "module report/seg.py", "setting destinations.send"),
                ),
                Transaction(
                    "Store Instances over the Web [RAD-108]",
                    "initiator",
                    "STOW-RS to destinations with an `https://` address",
                    ("destination dicomweb", "module delivery/stow.py"),
                ),
                Transaction(
                    "Storage Commitment [RAD-10]",
                    "initiator",
                    "not done",
                    (),
                    "a result counts as delivered when C-STORE or STOW-RS says success; commitment is not asked for",
                    ("name send_n_action",),
                ),
            ),
        ),
        Actor(
            "Image Manager/Image Archive",
            "in part: it keeps studies for as long as `[retention]` says, and is no long-term archive",
            (
                Transaction(
                    "Creator Images Stored [RAD-18], evidence documents stored [RAD-43]",
                    "responder",
                    "C-STORE of every standard storage SOP class; success means on disk",
                    (f"scp {SR}", f"scp {SEG}"),
                ),
                Transaction(
                    "Store Instances over the Web [RAD-108]",
                    "responder",
                    "`POST /dicomweb/studies`",
                    ("web POST /studies", f"web POST {_STUDY}"),
                ),
                Transaction(
                    "Storage Commitment [RAD-10]",
                    "responder",
                    "Storage Commitment Push Model, answered on the same or a new association",
                    (f"scp {COMMITMENT}", "setting move_destinations"),
                    "on a new association only for AE titles of `move_destinations` and `destinations`",
                ),
                Transaction(
                    "Query Images [RAD-14]",
                    "responder",
                    "C-FIND, Study Root and Patient Root; the keys are in `deploy/conformance.md`",
                    (f"scp {FIND}", "key StudyInstanceUID", "key Modality", "key SOPClassUID"),
                    "attributes of SR content, such as Concept Name Code Sequence, are no keys",
                    ("key ConceptNameCodeSequence", "key ReferencedRequestSequence", "key ContentDate"),
                ),
                Transaction(
                    "Retrieve Images [RAD-16]",
                    "responder",
                    "C-MOVE and C-GET",
                    (f"scp {MOVE}", f"scp {GET}", "setting move_destinations"),
                    "C-MOVE only to AE titles of `move_destinations` and `destinations`",
                ),
                Transaction("QIDO-RS Query [RAD-129]", "responder", "`GET /dicomweb/studies`", ("web GET /studies",)),
                Transaction(
                    "WADO-RS Retrieve [RAD-107]", "responder", f"`GET /dicomweb{_STUDY}`", (f"web GET {_STUDY}",)
                ),
            ),
        ),
    ),
    options="none",
    not_claimed="Image Display (Display Analysis Result [RAD-136]): the gateway's pages and OHIF show results, but "
    "were not held against the profile's rules for displays; Imaging Document Consumer.",
)

PRIMITIVES: Final = (
    (
        "qualitative findings",
        f"Comprehensive 3D SR, TID 1500 titled ({TITLE.value}, {TITLE.scheme}), a TID 1501 group for each level of the "
        f"label hierarchy, its probability as ({PROBABILITY.value}, {PROBABILITY.scheme}) and its uncertainty as "
        f"({UNCERTAINTY.value}, {UNCERTAINTY.scheme}) and ({EPISTEMIC.value}, {EPISTEMIC.scheme})",
        f"'not evaluable' is a group with ({NOT_EVALUATED.value}, {NOT_EVALUATED.scheme_designator}) under a code of "
        "our own",
    ),
    (
        "measurements",
        "a second SR: TID 1410 groups for one image, TID 1411 for a volume, each referring to its segment",
        "one kind of group in a report",
    ),
    ("locations (points)", "not written", "no network here finds points"),
    (
        "regions",
        "Segmentation, BINARY, or LABELMAP for a destination that wants it (`seg_encoding`)",
        "regions stand in the SEG alone, not as coordinates in the SR",
    ),
    (
        "parametric maps",
        "not written",
        "heat maps are Secondary Captures for people, marked NOT FOR DIAGNOSIS: the profile speaks of objects with "
        "machine-readable meaning, which they are not",
    ),
    ("tracking identifiers", "identifier and UID in every group, the same in SEG, SR and FHIR", ""),
    (
        "image references",
        "source images in the groups, in the image library and as evidence",
        f"of a volume, the image library lists the {RenderOptions().image_library_limit} planes with the largest "
        "cross-sections",
    ),
    (
        "the algorithm",
        f"TID 4019 in every group, device observer, Contributing Equipment with purpose ({PURPOSE.value}, "
        f"{PURPOSE.scheme}) and a Device UID that changes with the weights",
        "the purpose is the profile's provisional code",
    ),
)
"""Primitive, how it is written, limits."""

AIW: Final = Profile(
    "AI Workflow for Imaging (AIW-I)",
    (
        Actor(
            "Task Manager",
            "in part: pull and triggered pull workflow, without push",
            (
                Transaction(
                    "Create UPS Workitem [RAD-80]",
                    "responder",
                    "N-CREATE of UPS Push; `POST /dicomweb/workitems`. Every job of the gateway is a workitem too",
                    (f"scp {UPS_PUSH}", "web POST /workitems"),
                    "the study must be held here already, and a bundle be named; priorities are "
                    f"{' and '.join(PRIORITIES.values())}; Input Readiness State is {READY} throughout; none is "
                    "created at another system",
                    ("name send_n_create",),
                ),
                Transaction(
                    "Query UPS Workitems [RAD-81]",
                    "responder",
                    "C-FIND of UPS Pull, Watch and Query; `GET /dicomweb/workitems`",
                    (f"scp {PULL}", f"scp {WATCH}", f"scp {QUERY}", "web GET /workitems"),
                    "by the keys listed below",
                ),
                Transaction(
                    "Claim UPS Workitem [RAD-82]",
                    "responder",
                    "N-ACTION with a Transaction UID; `PUT …/state`; a second claim conflicts",
                    (f"scp {PULL}", f"web PUT {_WORKITEM}/state"),
                    f"a performer that is silent for `workitem_lease_s` ({_LEASE_S:g} s) loses its claim: the workitem "
                    "is SCHEDULED again",
                ),
                Transaction(
                    "Get UPS Workitem [RAD-83]",
                    "responder",
                    f"N-GET; `GET /dicomweb{_WORKITEM}`, as JSON or XML",
                    (f"scp {PULL}", f"web GET {_WORKITEM}"),
                ),
                Transaction(
                    "Update UPS Workitem [RAD-84]",
                    "responder",
                    f"N-SET; `POST /dicomweb{_WORKITEM}`, with the Transaction UID",
                    (f"scp {PULL}", f"web POST {_WORKITEM}"),
                ),
                Transaction(
                    "Complete UPS Workitem [RAD-85]",
                    "responder",
                    "N-ACTION; `PUT …/state`; refused while what a COMPLETED workitem needs is missing",
                    (f"scp {PULL}", f"web PUT {_WORKITEM}/state"),
                    "final workitems go when their study does, by `[retention]`",
                ),
                Transaction(
                    "Manage UPS Subscription [RAD-86]",
                    "responder",
                    "N-ACTION of UPS Watch; `POST` and `DELETE …/subscribers/AE`, `POST …/suspend`; of one workitem, "
                    "all, or those that match keys",
                    (f"scp {WATCH}", f"web POST {_SUBSCRIBER}", f"web DELETE {_SUBSCRIBER}"),
                ),
                Transaction(
                    "Send UPS Notification [RAD-87]",
                    "initiator",
                    "N-EVENT-REPORT on associations of our own; web sockets",
                    ("module workitem/teller.py", "web WebSocket /subscribers/{subscriber}"),
                    "by N-EVENT-REPORT only to AE titles of `move_destinations` and `destinations`; events older than "
                    "a day are dropped",
                ),
                Transaction(
                    "Request UPS Cancelation [RAD-88]",
                    "responder",
                    "N-ACTION of UPS Push and Watch; `POST …/cancelrequest`",
                    (f"scp {UPS_PUSH}", f"web POST {_WORKITEM}/cancelrequest"),
                ),
                Transaction(
                    "Open Event Channel [RAD-109]",
                    "responder",
                    "web socket `/dicomweb/subscribers/AE`",
                    ("web WebSocket /subscribers/{subscriber}",),
                ),
            ),
        ),
    ),
    options="none",
    not_claimed="the push workflow (the gateway creates no workitem at a performer of its own accord); Task Performer "
    "and Task Requester towards another manager (our workers take their work from our own queue); Watcher; Image "
    "Manager beyond what AIR says above.",
)

ATNA: Final = Profile(
    "Audit Trail and Node Authentication (ATNA)",
    (
        Actor(
            "Secure Application",
            "in part",
            (
                Transaction(
                    "Authenticate Node [ITI-19]",
                    "both",
                    f"DICOM over TLS and HTTPS, TLS 1.2 and later, with TLS 1.2 only `{CIPHERS}` (BCP 195); "
                    "certificates of clients required, optional or none; which AE titles a certificate may use, and "
                    "these not without it",
                    (
                        "setting dicom_tls.client_certificate",
                        "setting dicom_tls.certificates",
                        "setting tls.peer_ca",
                        "setting tls.http_client_certificate",
                    ),
                    "off until it is set up; `dicom_tls.plain` leaves a port without TLS open beside it, for titles "
                    "without a certificate; revocation lists are not read",
                    ("name VERIFY_CRL",),
                ),
                Transaction(
                    "Record Audit Event [ITI-20]",
                    "initiator",
                    f"DICOM audit messages (PS3.15 A.5) by syslog over {', '.join(sorted(SYSLOG))}; what the "
                    "repository has not taken waits in the database",
                    ("setting audit.repository", "event instances-transferred", "event query", "event security-alert"),
                    "syslog has no answer: what was handed over as the repository died may be lost, and is in the "
                    "gateway's own trail. Events are not sent as FHIR resources; they can be read under "
                    "`/fhir/AuditEvent`",
                ),
            ),
        ),
    ),
    options="DICOM audit messages by syslog over TLS or UDP; no FHIR feed",
    not_claimed="Secure Node (the operating system, its users and its disks are the hospital's); Audit Record "
    "Repository (the gateway keeps its own trail alone); Consistent Time (the host's clock is taken as it is: let it "
    "follow the hospital's time server).",
)
