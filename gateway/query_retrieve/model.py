"""The Query/Retrieve information models (PS3.4 C.6): levels, their unique keys, and what an identifier must hold."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode

from gateway.decoding import MALFORMED
from gateway.errors import CannotUnderstandError, DataSetMismatchError
from gateway.query.attributes import Level

if TYPE_CHECKING:
    from pydicom.uid import UID

UNIQUE_KEYS: dict[Level, int] = {
    "PATIENT": 0x00100020,
    "STUDY": 0x0020000D,
    "SERIES": 0x0020000E,
    "IMAGE": 0x00080018,
}
QUERY_RETRIEVE_LEVEL = 0x00080052
_LONGEST_KEY = 64


@dataclass(frozen=True, slots=True)
class InformationModel:
    """Patient Root or Study Root."""

    root: str
    """What the SOP Class UIDs of its services begin with."""
    levels: tuple[Level, ...]

    @property
    def find(self) -> str:
        """SOP Class UID of C-FIND."""
        return f"{self.root}.1"

    @property
    def move(self) -> str:
        """SOP Class UID of C-MOVE."""
        return f"{self.root}.2"

    @property
    def get(self) -> str:
        """SOP Class UID of C-GET."""
        return f"{self.root}.3"


PATIENT_ROOT = InformationModel("1.2.840.10008.5.1.4.1.2.1", ("PATIENT", "STUDY", "SERIES", "IMAGE"))
STUDY_ROOT = InformationModel("1.2.840.10008.5.1.4.1.2.2", ("STUDY", "SERIES", "IMAGE"))
MODELS = (PATIENT_ROOT, STUDY_ROOT)


def model_of(sop_class_uid: str) -> InformationModel:
    """Return the model that a SOP class of C-FIND, C-MOVE or C-GET belongs to."""
    return next(model for model in MODELS if sop_class_uid.startswith(f"{model.root}."))


def read_identifier(encoded: BytesIO | None, transfer_syntax: UID) -> Dataset:
    """Decode an identifier; CannotUnderstandError where there is none or it cannot be read."""
    if encoded is None:
        raise CannotUnderstandError("no identifier")
    try:
        identifier = decode(encoded, transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian)
        for _ in identifier.iterall():  # values are decoded as they are looked at
            continue
    except (*MALFORMED, OSError, RecursionError) as error:
        raise CannotUnderstandError("the identifier cannot be read") from error
    return identifier


def level_of(identifier: Dataset, model: InformationModel) -> Level:
    """Return the level asked for; DataSetMismatchError (A900) where the model has no such level."""
    text = key_text(identifier, QUERY_RETRIEVE_LEVEL)
    for level in model.levels:
        if level == text:
            return level
    raise DataSetMismatchError(f"Query/Retrieve Level is one of {', '.join(model.levels)}")


def levels_above(level: Level, model: InformationModel) -> tuple[Level, ...]:
    """Return the levels above one, the highest first."""
    return model.levels[: model.levels.index(level)]


def parent_keys(identifier: Dataset, level: Level, model: InformationModel, *, is_relational: bool) -> dict[int, str]:
    """Return the unique keys of the levels above, each a single value (PS3.4 C.4.1.2.1).

    Parameters
    ----------
    is_relational
        Whether relational queries or retrievals were negotiated: then they may be left out.

    Raises
    ------
    DataSetMismatchError
        One is missing, or is not a single value (A900).
    """
    found: dict[int, str] = {}
    for above in levels_above(level, model):
        tag = UNIQUE_KEYS[above]
        value = key_text(identifier, tag)
        is_single = bool(value) and not set(value) & ({"*", "?", "\\"} if above == "PATIENT" else {"*", "?", "\\", ","})
        if is_single and len(value) <= _LONGEST_KEY:
            found[tag] = value
        elif value or not is_relational:
            raise DataSetMismatchError(f"{keyword_for_tag(tag)} must be a single value at this level")
    return found


def key_text(identifier: Dataset, tag: int) -> str:
    r"""Return a key's value as text, several values separated by a backslash; empty where it is absent."""
    element = identifier.get(tag)
    if element is None or element.value is None:
        return ""
    if element.VR == "SQ":
        return ""
    value = element.value
    is_many = not isinstance(value, str | bytes) and hasattr(value, "__iter__") and element.VM > 1
    return "\\".join(str(each) for each in value).strip() if is_many else str(value).strip()
