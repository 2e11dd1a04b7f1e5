"""Small bundles whose networks are a TorchScript file, an ONNX file and a MONAI bundle; all are pinned."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from monai.networks.nets.basic_unet import BasicUNet
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from inference.bundle import Bundle
from inference.foreign.pin import pin

_HEAD = """format = 1
name = "{name}"
version = "1.0"
title = "A made-up model"
manufacturer = "HybridMed tests"
intended_use = "Tests. Not for diagnosis."

[weights]
file = "{file}"
sha256 = ""

[applicability]
modalities = {modalities}
body_parts = ["CHEST"]
accepts_blank_body_part = true

[data]
sources = "none"
licence = "none"
population = "none"

"""
_IMAGES = """[input]
kind = "projection"
size = 64
detail = 96
margin = 1.0
percentiles = [0.5, 99.5]
least_side_px = 32

[thresholds]

"""
_VOLUMES = """[input]
kind = "volume"
spacing_mm = [8.0, 6.0, 6.0]
patch = [16, 64, 64]
overlap = 0.0
window = [-1000.0, 400.0]
planes = [10, 3000]
least_extent_mm = [10.0, 10.0, 10.0]
most_extent_mm = [1200.0, 900.0, 900.0]
most_spacing_mm = [10.0, 2.0, 2.0]

[thresholds]
least_volume_ml = 1.0
least_confidence = 0.5
most_cut_share = 1.0

"""
_LEVEL = """
[[levels]]
name = "brightness"
question = { value = "BRIGHTNESS", scheme = "99HYBRIDMED", meaning = "Brightness" }
positive = "bright"
[[levels.classes]]
name = "dark"
code = { value = "DARK", scheme = "99HYBRIDMED", meaning = "Mostly dark" }
[[levels.classes]]
name = "bright"
code = { value = "BRIGHT", scheme = "99HYBRIDMED", meaning = "Mostly bright" }
"""
_SEGMENT = """
[[segments]]
name = "tissue"
label = "Tissue"
category = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
type = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
color_lab = [50.0, 20.0, 20.0]
"""
_VOLUME_MEASURED = """
[[measurements]]
kind = "volume"
quantity = { value = "118565006", scheme = "SCT", meaning = "Volume" }
unit = { value = "mL", scheme = "UCUM", meaning = "milliliter" }
"""


class BrightParts(nn.Module):
    """Tells how bright a three-channel image is, and marks its bright pixels."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, 2) and (B, 2, Y, X) scores of a (B, 3, Y, X) image in -1..1."""
        grey = image.mean(dim=1, keepdim=True)  # (B, 1, Y, X)
        mean = grey.mean(dim=(2, 3))  # (B, 1)
        return torch.cat([-8 * mean, 8 * mean], dim=1), torch.cat([-20 * grey, 20 * grey], dim=1)


def make_torchscript(folder: Path) -> Bundle:
    """Make a classifier and segmenter of X-rays."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch develops the format no longer; hospitals have such files
        torch.jit.script(BrightParts()).save(folder / "network.pt")
    network = """[network]
kind = "torchscript"
outputs = ["brightness", "segments"]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""
    return _written(folder, "network.pt", ["CR", "DX"], _IMAGES + network + _LEVEL + _SEGMENT)


def make_onnx(folder: Path, *, is_split: bool = False) -> Bundle:
    """Make a classifier of X-rays that tells one probability; `is_split` keeps its weights in a further file."""
    folder.mkdir(parents=True)
    onnx.save_model(
        _bright_model(),
        folder / "network.onnx",
        save_as_external_data=is_split,
        location="weights.bin",
        size_threshold=0,
    )
    network = """[network]
kind = "onnx"
outputs = ["brightness"]
activation = "probabilities"
"""
    return _written(folder, "network.onnx", ["CR", "DX"], _IMAGES + network + _LEVEL)


def _bright_model() -> onnx.ModelProto:
    """Return sigmoid(16 * mean - 8) of a (B, 1, Y, X) image."""
    constants = {
        "slope": np.array([[16.0]], dtype=np.float32),
        "offset": np.array([-8.0], dtype=np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "slope", "offset"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["bright"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 1, "Y", "X"])],
        [helper.make_tensor_value_info("bright", TensorProto.FLOAT, ["B", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


MONAI_CONFIG = {
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "sizes": {"features": [8, 8, 8, 8, 8, 8]},
    "network_def": {
        "_target_": "BasicUNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "features": "@sizes#features",
    },
    "network": "$@network_def.to(@device)",
}


def make_monai(folder: Path) -> Bundle:
    """Make a segmenter of CT that calls everything tissue."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, features=(8, 8, 8, 8, 8, 8))
    nn.init.zeros_(network.final_conv.weight)
    with torch.no_grad():
        network.final_conv.bias.copy_(torch.tensor([0.0, 2.0]))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    (folder / "configs" / "inference.json").write_text(json.dumps(MONAI_CONFIG))
    formats = {"inputs": {"image": {"num_channels": 1}}, "outputs": {"pred": {"num_channels": 2}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": formats}))
    table = """[network]
kind = "monai"
outputs = ["segments"]
orientation = "RAS"
definition = "configs/inference.json"
definition_sha256 = ""
"""
    return _written(folder, "models/model.pt", ["CT"], _VOLUMES + table + _SEGMENT + _VOLUME_MEASURED)


def _written(folder: Path, file: str, modalities: list[str], rest: str) -> Bundle:
    head = _HEAD.format(name=folder.name, file=file, modalities=json.dumps(modalities))
    (folder / "bundle.toml").write_text(head + rest)
    return pin(folder)
