"""Procedure Reported (PS3.16 TID 1500): the imaging procedure, from the modality.

Validators hold the code to CID 100, which knows modalities but few body regions; the region is in the findings' sites.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from inference.findings import Code

_BY_MODALITY = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "NM": Code("49118-3", "LN", "NM unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
}
_ANY = Code("363679005", "SCT", "Imaging procedure")


def procedure_reported(header: Dataset) -> Code:
    """Return the code of the procedure that made the source series."""
    return _BY_MODALITY.get(str(header.get("Modality") or ""), _ANY)
