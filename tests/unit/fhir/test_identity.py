"""Resource ids: stable, apart, and of no use to who has only the patient's data."""

from __future__ import annotations

import stat
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fhir_facade.identity import FILE_NAME, ResourceIds, installation_ids

from gateway.errors import ConfigurationError


def test_the_installation_keeps_its_ids(tmp_path: Path) -> None:
    """A second process of the same data folder makes the same ids; another installation makes others."""
    other = tmp_path / "other"
    other.mkdir()

    first, again, foreign = (installation_ids(folder).make("Patient", "P-17") for folder in (tmp_path, tmp_path, other))

    assert first == again
    assert first != foreign
    assert uuid.UUID(first)


def test_the_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 0600, and nothing else is left in the folder."""
    installation_ids(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    """Of many that make the secret at the same time, one wins."""
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: installation_ids(tmp_path).namespace, range(16)))

    assert len(made) == 1


def test_a_damaged_secret_is_not_replaced(tmp_path: Path) -> None:
    """New ids for old resources would be worse than a refusal."""
    (tmp_path / FILE_NAME).write_text("", encoding="ascii")

    with pytest.raises(ConfigurationError, match="restore"):
        installation_ids(tmp_path)


def test_parts_do_not_run_together() -> None:
    """Issuer and patient id are told apart."""
    ids = ResourceIds(uuid.uuid4())

    assert len({ids.make("Patient", "a", "bc"), ids.make("Patient", "ab", "c"), ids.make("Patient", "abc")}) == 3
