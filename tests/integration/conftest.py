"""Fixtures of the integration tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import Store, open_store
from tests.training import chests, tiny_bundle, trained

__all__ = ["chests", "tiny_bundle", "trained"]


@pytest.fixture
def local_store(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Store]:
    """Give a migrated SQLite database, for tests of what does not depend on the database."""
    shutil.copyfile(migrated_sqlite, tmp_path / "hybridmed.db")
    opened = open_store(f"sqlite:///{tmp_path / 'hybridmed.db'}", tmp_path)
    yield opened
    opened.close()
