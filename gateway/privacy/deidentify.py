"""A data set without the patient: the Basic Profile of PS3.15 annex E with the options of `profile.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

from pydicom._uid_dict import UID_dictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from gateway.errors import DeliveryError
from gateway.exchange.deidentified import Pseudonyms
from gateway.privacy.profile import (
    BIRTH_DATES,
    CHARACTERISTICS,
    DESCRIPTORS,
    OPTIONS,
    TEMPORAL,
    act_of,
)

_CONTENT = 0x0040A730
_PERSON_CODES = 0x00401101  # Person Identification Code Sequence
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_OLDEST_TOLD = 89
_REMOVED, _NOBODY = "REMOVED", "ANONYMOUS"
_NUMBERS = {"DS": "0", "IS": "0", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0}
_TEXTS = frozenset({"LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE", "UR"})
_PIXELS_OF_STRANGERS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, and its multi-frame kin
        "1.2.840.10008.5.1.4.1.1.7.1",
        "1.2.840.10008.5.1.4.1.1.7.2",
        "1.2.840.10008.5.1.4.1.1.7.3",
        "1.2.840.10008.5.1.4.1.1.7.4",
        "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
        "1.2.840.10008.5.1.4.1.1.3.1",
        "1.2.840.10008.5.1.4.1.1.104.1",  # encapsulated documents
    }
)
"""SOP classes whose pictures usually have text burned in: taken only where they say that they have none."""
_OWN_TEXTS = frozenset(
    {
        "112039",  # Tracking Identifier
        "111001",  # Algorithm Name
        "111002",  # Algorithm Parameters
        "111003",  # Algorithm Version
        "122405",  # Algorithm Manufacturer
        "121013",  # Device Observer Name
        "121014",  # Device Observer Manufacturer
        "121015",  # Device Observer Model Name
    }
)
"""Concepts (DCM) of text that a program wrote; all other text of a report may name somebody."""


class BurnedInError(DeliveryError):
    """A picture may show the patient's name: it does not leave."""


@dataclass(frozen=True, slots=True)
class Deidentifier:
    """Makes data sets that lead back to nobody but the holder of the pseudonyms' secret.

    Parameters
    ----------
    pseudonyms
        What stands for patients and UIDs.
    """

    pseudonyms: Pseudonyms

    def apply(self, data_set: Dataset, *, is_own: bool) -> Dataset:
        """Change a data set, with its file meta information, in place, and return it.

        Parameters
        ----------
        is_own
            Whether it is a result of ours: its descriptors are then texts of the program.

        Raises
        ------
        BurnedInError
            Its pixels, or its document, may show who the patient is.
        """
        _require_clean_pixels(data_set)
        issuer, number = issuer_name(str(data_set.get("IssuerOfPatientID", ""))), str(data_set.get("PatientID", ""))
        number = number or str(data_set.get("StudyInstanceUID", ""))
        cleaning = _Cleaning(self.pseudonyms, self.pseudonyms.shift(issuer, number), is_own)
        cleaning.clean(data_set)
        pseudonym = self.pseudonyms.patient(issuer, number)
        data_set.PatientID, data_set.PatientName = pseudonym, pseudonym
        data_set.PatientIdentityRemoved = "YES"
        data_set.LongitudinalTemporalInformationModified = "MODIFIED"
        data_set.DeidentificationMethod = [meaning[:64] for _, meaning in OPTIONS]
        data_set.DeidentificationMethodCodeSequence = Sequence(_method(*each) for each in OPTIONS)
        self._clean_meta(data_set)
        return data_set

    def _clean_meta(self, data_set: Dataset) -> None:
        meta = getattr(data_set, "file_meta", None)
        if meta is None:
            return
        meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        for element in list(meta):
            if element.keyword.endswith("ApplicationEntityTitle") or element.tag.elem >= 0x0100:  # noqa: PLR2004 # private information
                del meta[element.tag]
        data_set.preamble = b"\0" * 128


@dataclass(frozen=True, slots=True)
class _Cleaning:
    """One object's."""

    pseudonyms: Pseudonyms
    shift: timedelta
    is_own: bool

    def clean(self, data_set: Dataset, *, is_dummy: bool = False) -> None:
        """Clean a data set or an item; with `is_dummy` one whose every text goes."""
        data_set.remove_private_tags()
        for element in list(data_set):
            if not self._is_kept(data_set, element, is_dummy=is_dummy):
                del data_set[element.tag]

    def _is_kept(self, data_set: Dataset, element: DataElement, *, is_dummy: bool) -> bool:
        """Change an element; False where it is to go."""
        tag, act = int(element.tag), act_of(int(element.tag))
        if element.VR == "UN" or (tag in BIRTH_DATES and act == "remove"):
            return False
        if tag == _CONTENT:
            element.value = Sequence(item for item in element.value if self._is_content_kept(item))
        elif tag in CHARACTERISTICS:
            _cap_age(element)
        elif tag in DESCRIPTORS and self.is_own:
            return True
        elif element.VR in TEMPORAL and tag not in BIRTH_DATES:
            self._shift(element)
        elif act == "remove":
            return False
        elif act == "empty":
            element.value = Sequence() if element.VR == "SQ" else None
        elif element.VR == "SQ":
            for item in element.value:
                self.clean(item, is_dummy=is_dummy or act == "dummy")
        elif element.VR == "UI":
            self._replace_uids(element)
        elif act == "dummy" or (is_dummy and element.VR in _TEXTS | {"PN"}) or element.VR == "PN":
            _put_dummy(element)
        return not (is_dummy and tag == _PERSON_CODES)

    def _is_content_kept(self, item: Dataset) -> bool:
        """Clean a content item of a report (PS3.15 E.3.3); False where it is a person's text and may go."""
        kind = item.get("ValueType", "")
        if kind == "TEXT" and not _is_program_text(item):
            return False
        self.clean(item)
        return True

    def _replace_uids(self, element: DataElement) -> None:
        """Put others for UIDs, all but those that the standard registers."""
        values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
        replaced = [uid if not uid or str(uid) in UID_dictionary else self.pseudonyms.uid(str(uid)) for uid in values]
        element.value = replaced if len(replaced) != 1 else replaced[0]

    def _shift(self, element: DataElement) -> None:
        """Shift dates by whole days: intervals stay, and so do times of day; what is no date goes."""
        if element.VR == "TM" or element.value in (None, ""):
            return
        values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
        shifted = [_shifted(str(value), self.shift) for value in values]
        element.value = shifted if len(shifted) != 1 else shifted[0]


def issuer_name(issuer: str) -> str:
    """Return who gave the patient's id, as FHIR writes it, so that a patient has one pseudonym there and here."""
    text = issuer.strip()
    return f"urn:oid:{text}" if _OID.fullmatch(text) else text


def _shifted(text: str, shift: timedelta) -> str:
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        return f"{day + shift:%Y%m%d}{text[8:]}"
    except (ValueError, OverflowError):
        return ""


def _is_program_text(item: Dataset) -> bool:
    names = item.get("ConceptNameCodeSequence") or [Dataset()]
    code = names[0]
    return code.get("CodingSchemeDesignator") == "DCM" and code.get("CodeValue") in _OWN_TEXTS


def _cap_age(element: DataElement) -> None:
    """Tell of ages over 89 years no more than that."""
    text = str(element.value or "")
    if element.VR == "AS" and text[3:] == "Y" and text[:3].isdigit() and int(text[:3]) > _OLDEST_TOLD:
        element.value = "090Y"


def _put_dummy(element: DataElement) -> None:
    """Put a value in that says nothing, of the element's kind."""
    if element.VR == "PN":
        element.value = _NOBODY
    elif element.VR in _NUMBERS:
        element.value = _NUMBERS[element.VR]
    elif element.VR in _TEXTS:
        element.value = _REMOVED
    elif element.VR in {"OB", "OW", "OF", "OD", "OL", "OV"}:
        element.value = b"\0\0"
    else:
        element.value = None


def _require_clean_pixels(data_set: Dataset) -> None:
    says = data_set.get("BurnedInAnnotation", "")
    is_suspect = str(data_set.get("SOPClassUID", "")) in _PIXELS_OF_STRANGERS or data_set.get("Modality", "") in {"US"}
    if says == "YES" or (is_suspect and says != "NO"):
        raise BurnedInError("text may be burned into the picture: not sent without the patient")


def _method(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
