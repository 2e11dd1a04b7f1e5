"""Digests and self-test of a bundle into its `bundle.toml`: what one does last with a model from elsewhere."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import torch

from inference.bundle import BUNDLE_FILE, Bundle, load_bundle
from inference.errors import BundleError
from inference.foreign.load import load_foreign
from inference.foreign.spec import Allowance
from inference.self_test import self_test_table
from inference.training.figures import drop_table, write_table

_LARGEST_BUNDLE_FILE = 1 << 20


def pin(folder: Path) -> Bundle:
    """Write the digests of the files that `bundle.toml` names, then what the network says of the made-up input.

    This runs the network: whoever asks for it trusts it.

    Raises
    ------
    BundleError
        bundle.toml is wrong, the network does not run, or it is one of this project's, which `train` makes.
    """
    file = folder / BUNDLE_FILE
    try:
        text = file.read_bytes()[:_LARGEST_BUNDLE_FILE].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: cannot be read: {error}") from error
    _write(file, _pinned(_pinned(text, folder, "file", "sha256"), folder, "definition", "definition_sha256"))
    drop_table(file, "self_test")
    allowance = Allowance((_name(text, file),))
    bundle = load_bundle(folder, allowance=allowance)
    if bundle.foreign is None:
        raise BundleError(f"{file}: network.kind: is this project's own; `hybridmed train` writes its digest")
    network = load_foreign(bundle, bundle.foreign, torch.device("cpu"))
    write_table(file, "self_test", self_test_table(bundle, network))
    return load_bundle(folder, allowance=allowance)


def _name(text: str, file: Path) -> str:
    try:
        return str(tomllib.loads(text).get("name", ""))
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"{file}: cannot be read: {error}") from error


def _pinned(text: str, folder: Path, key: str, digest_key: str) -> str:
    """Return the text with the digest of the file that `key` names, in the line of `digest_key` that follows it."""
    named = re.search(rf'^{key}\s*=\s*"([^"\n]+)"', text, re.MULTILINE)
    if named is None:
        return text
    try:
        digest = hashlib.sha256((folder / named[1]).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{folder / BUNDLE_FILE}: {key}: cannot be read: {error}") from error
    line = re.compile(rf'^{digest_key}\s*=\s*"[^"\n]*"', re.MULTILINE)
    rest = text[named.end() :]
    if not line.search(rest):
        return f'{text[: named.end()]}\n{digest_key} = "{digest}"{rest}'
    return text[: named.end()] + line.sub(f'{digest_key} = "{digest}"', rest, count=1)


def _write(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
