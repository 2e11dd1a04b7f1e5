"""Resource ids: stable over revisions, and not guessable from patient data.

An id is a name-based UUID in a name space that only this installation knows. Who has an id learns nothing of the
patient; who has the patient's data cannot work out the id.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ConfigurationError
from gateway.once import write_once

FILE_NAME = "installation-id"


@dataclass(frozen=True, slots=True)
class ResourceIds:
    """Makes ids; the same parts give the same id.

    Parameters
    ----------
    namespace
        The installation's secret.
    """

    namespace: uuid.UUID

    def make(self, resource_type: str, *parts: str) -> str:
        """Return the id of the resource that these parts name; no other parts give the same."""
        name = "".join(f"{len(part)}:{part}," for part in (resource_type, *parts))
        return str(uuid.uuid5(self.namespace, name))


def installation_ids(data_dir: Path) -> ResourceIds:
    """Return the ids of the installation that owns a data folder; its secret is made at the first call.

    The file `installation-id` belongs into every backup: without it, new revisions get new ids.

    Raises
    ------
    ConfigurationError
        The file does not hold a UUID.
    """
    path = data_dir / FILE_NAME
    if not path.exists():
        write_once(path, str(uuid.uuid4()))
    try:
        return ResourceIds(uuid.UUID(path.read_text(encoding="ascii").strip()))
    except ValueError:
        raise ConfigurationError(f"{path} holds no UUID: restore it from a backup") from None
