"""A MONAI bundle: its network's definition read as data, its class from a list, its weights without pickle.

MONAI's own parser evaluates what begins with `$` as Python and imports any `_target_`; nothing of that is done here.
"""

from __future__ import annotations

import inspect
import io
import json
import pickle  # nosec B403 # its error alone
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from monai.networks import nets
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from inference.errors import BundleError

NETWORKS = frozenset(
    {
        "AttentionUnet",
        "BasicUNet",
        "BasicUNetPlusPlus",
        "DenseNet121",
        "DenseNet169",
        "DenseNet201",
        "DenseNet264",
        "DynUNet",
        "EfficientNetBN",
        "FlexibleUNet",
        "HighResNet",
        "SEResNet50",
        "SegResNet",
        "SegResNetDS",
        "SwinUNETR",
        "UNet",
        "UNETR",
        "VNet",
        "resnet10",
        "resnet18",
        "resnet34",
        "resnet50",
    }
)
"""Classes of `monai.networks.nets` that take a tensor and give tensors."""

METADATA = "metadata.json"
_MODULE = "monai.networks.nets."
_TARGET = "_target_"
_SAID_ABOUT = {"_desc_"}
_DEEPEST = 8
_LARGEST_CONFIG_BYTES = 1 << 20
_INNER_STATES = ("state_dict", "model")


def wrong(place: Path, reason: str) -> BundleError:
    """Return the error that names a file of the bundle."""
    return BundleError(f"{place}: {reason}")


def open_monai(content: bytes, weights: Path, definition: bytes, file: Path) -> nn.Module:
    """Return the network, filled and ready to evaluate.

    Parameters
    ----------
    content
        The weights: safetensors, or what torch saved of a state.
    definition
        `inference.json`.
    file
        Where that lies, for messages.

    Raises
    ------
    BundleError
        The definition is more than plain data, its class is not on the list, or the weights are another network's.
    """
    config = _parsed(definition, file)
    network = _built(_definition(config, file), config, file)
    state = _state(content, weights)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise wrong(weights, f"does not fit the network of {file.name}: {error}") from error
    return network.eval().requires_grad_(False)


def check_metadata(file: Path, channels: int, classes: int) -> None:
    """Raise BundleError where `metadata.json` tells of other channels than bundle.toml."""
    try:
        metadata = _parsed(file.read_bytes(), file)
    except OSError as error:
        raise wrong(file, f"cannot be read: {error}") from error
    for side, name, expected in (("inputs", "image", channels), ("outputs", "pred", classes)):
        found: object = metadata
        for key in ("network_data_format", side, name, "num_channels"):
            found = found.get(key) if isinstance(found, dict) else None
        if found not in (None, expected) and (found, expected) != (1, 2):  # one channel tells two classes
            place = f"network_data_format.{side}.{name}.num_channels"
            raise wrong(file, f"{place}: is {found!r}, bundle.toml asks for {expected}")


def _parsed(content: bytes, file: Path) -> dict[str, object]:
    try:
        if len(content) > _LARGEST_CONFIG_BYTES:
            raise ValueError(f"has more than {_LARGEST_CONFIG_BYTES} bytes")
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise wrong(file, f"is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise wrong(file, "is no JSON object")
    return config


def _definition(config: Mapping[str, object], file: Path) -> Mapping[str, object]:
    for name in ("network_def", "network"):
        found = config.get(name)
        if isinstance(found, dict) and _TARGET in found:
            return found
    raise wrong(file, f"network_def: is missing, expected an object with {_TARGET}")


def _built(definition: Mapping[str, object], config: Mapping[str, object], file: Path) -> nn.Module:
    target = definition[_TARGET]
    name = str(target).removeprefix(_MODULE)
    name = name.rpartition(".")[2] if name != target else name
    if name not in NETWORKS:
        raise wrong(file, f"network_def.{_TARGET}: {target!r} is none of {', '.join(sorted(NETWORKS))}")
    arguments = {
        key: _plain(value, config, file, f"network_def.{key}", 0)
        for key, value in definition.items()
        if key != _TARGET and key not in _SAID_ABOUT
    }
    build = getattr(nets, name)
    if "pretrained" in inspect.signature(build).parameters:
        arguments["pretrained"] = False  # the bundle brings its weights; nothing is fetched
    try:
        return cast(nn.Module, build(**arguments))
    except (TypeError, ValueError, KeyError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise wrong(file, f"network_def: {name} does not take these arguments: {error}") from error


def _plain(value: object, config: Mapping[str, object], file: Path, place: str, depth: int) -> object:
    """Return a value as plain data, what it refers to put in; BundleError where it would have to be evaluated."""
    if depth > _DEEPEST:
        raise wrong(file, f"{place}: is nested too deeply")
    if isinstance(value, str):
        if value.startswith(("$", "%")):
            raise wrong(file, f"{place}: {value!r} is an expression, which is not evaluated: write its value")
        if value.startswith("@"):
            return _plain(_referred(value[1:], config, file, place), config, file, place, depth + 1)
        return value
    if isinstance(value, list):
        return [_plain(each, config, file, f"{place}[{index}]", depth + 1) for index, each in enumerate(value)]
    if isinstance(value, dict):
        if odd := sorted(key for key in value if key.startswith("_")):
            raise wrong(file, f"{place}.{odd[0]}: only plain arguments are taken")
        return {key: _plain(each, config, file, f"{place}.{key}", depth + 1) for key, each in value.items()}
    return value


def _referred(name: str, config: Mapping[str, object], file: Path, place: str) -> object:
    found: object = config
    for part in name.replace("#", "::").split("::"):
        if not isinstance(found, dict) or part not in found:
            raise wrong(file, f"{place}: there is no {name!r}")
        found = found[part]
    return found


def _state(content: bytes, file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{file}: holds more than weights, or none: {reason}") from error
    for name in _INNER_STATES:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise wrong(file, "holds no state of a network: expected tensors by name")
    return state
