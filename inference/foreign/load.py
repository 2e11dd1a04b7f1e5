"""A bundle's foreign network, from checked bytes, shown a made-up input before it serves."""

from __future__ import annotations

import torch

from inference.bundle import Bundle
from inference.foreign.network import ForeignNetwork, Runner
from inference.foreign.onnx_file import open_onnx
from inference.foreign.spec import MONAI, ONNX, SEGMENTS, ForeignSpec
from inference.foreign.torchscript import open_torchscript
from inference.pinned import read_pinned
from inference.self_test import check_network


def load_foreign(bundle: Bundle, spec: ForeignSpec, device: torch.device) -> ForeignNetwork:
    """Return the network of a bundle whose `foreign` is `spec`, on the device.

    Raises
    ------
    BundleError
        The file is not of its kind, or the network does not do what bundle.toml says of it.
    """
    content = read_pinned(bundle.weights_path, bundle.algorithm.weights_digest)
    classes = {level.name: len(level.classes) for level in bundle.levels} | {SEGMENTS: 1 + len(bundle.segments)}
    run = _opened(content, bundle, spec, classes, device)
    network = ForeignNetwork(run, spec, classes).eval().to(device)
    check_network(bundle, network)
    return network


def _opened(content: bytes, bundle: Bundle, spec: ForeignSpec, classes: dict[str, int], device: torch.device) -> Runner:
    if spec.kind == ONNX:
        return open_onnx(content, bundle.weights_path, device)
    if spec.kind == MONAI and spec.definition is not None:
        from inference.foreign import monai_bundle  # noqa: PLC0415 # all of MONAI's networks take seconds to import

        definition = read_pinned(spec.definition, spec.definition_digest)
        metadata = spec.definition.with_name(monai_bundle.METADATA)
        monai_bundle.check_metadata(metadata, len(spec.mean), classes[spec.outputs[0]])
        return monai_bundle.open_monai(content, bundle.weights_path, definition, spec.definition)
    return open_torchscript(content, bundle.weights_path, device)
