"""Where a compressed bundle is made: what is kept for another try, and that there is one run at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

import pytest

from inference.bundle import Bundle, load_bundle
from inference.errors import BundleError
from inference.training.making import Work, staging
from tests.training import describe_tiny


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Give a bundle without weights."""
    return load_bundle(describe_tiny(tmp_path), verify_weights=False)


def _work(bundle: Bundle, made: Path) -> Work:
    return Work(bundle, made, made, "cpu", lambda _: None)


def test_only_its_own_checkpoint_is_forgotten(bundle: Bundle, tmp_path: Path) -> None:
    """What was learnt with other settings waits for the call that asks for it."""
    out = tmp_path / "out"
    with staging(out, "small") as made:
        ours, others = _work(bundle, made), _work(bundle, made)
        own, other = ours.checkpoint({"epochs": 2}), others.checkpoint({"epochs": 3})
        own.touch()
        other.touch()
        ours.forget()

    assert own != other
    assert not own.exists() and other.exists()


def test_nothing_is_left_without_a_checkpoint(tmp_path: Path) -> None:
    """Folders that were made for it are gone, too."""
    with staging(tmp_path / "new" / "out", "small") as made:
        (made / "file").touch()

    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    """And the first is not disturbed."""
    with staging(tmp_path, "small") as made:
        with pytest.raises(BundleError, match="another run is making this bundle"), staging(tmp_path, "small"):
            pass
        assert made.is_dir()


def test_a_lock_that_was_removed_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that opened the file just before another removed it locks the one that the next run will see."""
    flock, held = fcntl.flock, tmp_path / ".compress-small" / "lock"
    removals = iter([held])

    def removed_before(file: TextIO, operation: int) -> None:
        for each in removals:
            each.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with staging(tmp_path, "small"):
        assert held.exists()
        with pytest.raises(BundleError, match="another run"), staging(tmp_path, "small"):
            pass
