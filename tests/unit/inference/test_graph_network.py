"""Networks as ONNX graphs, in float and in int8: the same answers, nearly the same answers, and what is refused."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx.external_data_helper import convert_model_to_external_data
from safetensors.torch import load, save

from inference.bundle import load_bundle
from inference.errors import BundleError, DeviceFullError
from inference.foreign.onnx_file import open_onnx
from inference.foreign.spec import NOBODY, Allowance
from inference.networks.config import HybridMedNetConfig
from inference.networks.graph_network import ENCODING, Graph, GraphNetwork, save_graph_network
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.pyramid import at_scale
from inference.networks.weights import load_network, load_volume_network
from inference.saliency import grad_cam
from inference.training.figures import write_table
from inference.training.graph_export import exported, resampling
from inference.training.quantisation import quantised
from tests.training import describe_tiny

_SIZE = 64
_CPU = torch.device("cpu")
_PARENTS = (0, 1, 1)
_ALLOWED = Allowance(("cxr-pneumonia",))


def _network(segmentation: int = 3, **table: object) -> HybridMedNet:
    torch.manual_seed(0)
    parts: dict[str, object] = {
        "backbone": "resnet10",
        "width": 8,
        "channels": 8,
        "decoder_width": 8,
        "scales": [1.0, 0.5],
    }
    config = HybridMedNetConfig.from_table({**parts, **table})
    return HybridMedNet(config, 2, 3, segmentation).eval().requires_grad_(False)


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, _SIZE, _SIZE, generator=torch.Generator().manual_seed(count))


def _opened(network: HybridMedNet, graphs: tuple[bytes, bytes]) -> GraphNetwork:
    features, segmentation = (Graph(graph, Path("graph")) for graph in graphs)
    return GraphNetwork(network, features, segmentation).eval()


@pytest.fixture(scope="module")
def network() -> HybridMedNet:
    """Give a small network in float."""
    return _network()


@pytest.fixture(scope="module")
def graphs(network: HybridMedNet, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Give its graphs in int8."""
    return quantised(network, _images(8), _SIZE, tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def folder(network: HybridMedNet, graphs: tuple[bytes, bytes], tmp_path: Path) -> Path:
    """Give a bundle in int8."""
    describe_tiny(tmp_path)
    _store(tmp_path, save_graph_network(network, *graphs))
    return tmp_path


def _store(folder: Path, content: bytes, encoding: str = ENCODING) -> None:
    (folder / "weights.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    table = {"file": "weights.safetensors", "encoding": encoding, "sha256": digest}
    write_table(folder / "bundle.toml", "weights", table)


@pytest.mark.parametrize(("side", "scale"), [(64, 0.75), (112, 0.5), (30, 0.75)])
def test_the_matrices_resample_as_the_network_does(side: int, scale: float) -> None:
    """Along rows and columns they give what the low-passed resampling gives."""
    image, matrix = torch.rand(2, 1, side, side), resampling(side, scale)

    assert torch.allclose(matrix @ image @ matrix.T, at_scale(image, scale), atol=1e-5)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"backbone": "efficientnet_b0", "width": 16},
        {"attention": "mixed", "fusion": "hybrid", "alignment": True, "local_global": True},
    ],
)
def test_the_float_graphs_answer_as_the_network(table: dict[str, object]) -> None:
    """For one image and for several."""
    network = _network(**table)
    run = _opened(network, exported(network, _SIZE))

    for count in (1, 3):
        with torch.no_grad():
            said, expected = run(_images(count)), network(_images(count))
        assert torch.allclose(said.classes.fine, expected.classes.fine, atol=1e-3)
        assert torch.allclose(said.segmentation, expected.segmentation, atol=1e-3)


def test_a_second_input_is_refused() -> None:
    """What no predictor shows is not exported."""
    with pytest.raises(BundleError, match=r"network\.inputs"):
        exported(_network(inputs=2), _SIZE)


def test_the_int8_graphs_hold_int8_and_answer_nearly_the_same(
    network: HybridMedNet, graphs: tuple[bytes, bytes]
) -> None:
    """Weights of convolutions lie in 7 bits, in about a quarter of the room; levels differ by little."""
    image = _images(4)
    with torch.no_grad():
        said, expected = _opened(network, graphs).features(image), network.features(image)

    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(graphs[0]).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(weights) > 10
    assert all(abs(int(levels.max())) <= 64 and int(levels.min()) >= -64 for levels in weights)
    for one, other in zip(said, expected, strict=True):
        assert 0 < (one - other).abs().mean() < 0.1 * other.abs().mean()


def test_the_bundle_loads_and_explains_itself(network: HybridMedNet, folder: Path) -> None:
    """Heads, features for the guard and Grad-CAM are there, and nearly the original's."""
    loaded, image = load_network(load_bundle(folder, allowance=_ALLOWED), _CPU), _images(2)

    with torch.no_grad():
        said, expected = loaded(image), network(image)
        levels, originals = loaded.features(image), network.features(image)
    assert said.segmentation.shape == expected.segmentation.shape
    assert torch.allclose(said.classes.coarse, expected.classes.coarse, atol=0.1)
    assert loaded.described(levels).shape == (2, loaded.described_width)
    maps = [grad_cam(each, found, _PARENTS, 1, _SIZE) for each, found in ((loaded, levels), (network, originals))]
    assert (maps[0] - maps[1]).abs().mean() < 0.1
    assert maps[0].amax() == pytest.approx(1)


def test_gradients_by_the_image_are_refused(network: HybridMedNet, graphs: tuple[bytes, bytes]) -> None:
    """They would be zero without a word."""
    with pytest.raises(BundleError, match="no gradients by the image"):
        _opened(network, graphs).features(_images(1).requires_grad_())


def test_it_is_not_trained(network: HybridMedNet, graphs: tuple[bytes, bytes]) -> None:
    """Neither whole nor by scale."""
    with pytest.raises(BundleError, match="neither trained"):
        _opened(network, graphs).scale_features(_images(1))


def test_another_size_is_refused(network: HybridMedNet, graphs: tuple[bytes, bytes]) -> None:
    """Graphs are for one size."""
    run = _opened(network, graphs)

    with pytest.raises(BundleError, match=r"refuses \[1, 1, 32, 32\]"):
        run(torch.zeros(1, 1, 32, 32))
    with pytest.raises(BundleError, match=r"outlines \[64, 64\] pixels, not \[32, 32\]"):
        run.segment(run.features(_images(1)), (32, 32))


@pytest.mark.parametrize("lost", ["graph.features", "graph.segmentation", "heads.fine.weight"])
def test_a_file_that_lacks_a_part_is_refused(folder: Path, lost: str) -> None:
    """The part is named."""
    stored = load((folder / "weights.safetensors").read_bytes())
    _store(folder, save({name: stored[name] for name in stored if name != lost}))

    with pytest.raises(BundleError, match=f"(?s)does not fit .*{lost.removeprefix('heads.')}"):
        load_network(load_bundle(folder, allowance=_ALLOWED), _CPU)


def test_a_graph_with_weights_in_further_files_is_refused(
    network: HybridMedNet, graphs: tuple[bytes, bytes], folder: Path
) -> None:
    """No digest would pin them; not even where they lie in the working folder."""
    model = onnx.load_from_string(graphs[0])
    convert_model_to_external_data(model, location="further.bin", size_threshold=0)
    onnx.save(model, folder / "graph.onnx")
    _store(folder, save_graph_network(network, (folder / "graph.onnx").read_bytes(), graphs[1]))

    with pytest.raises(BundleError, match="cannot be run by ONNX Runtime"):
        load_network(load_bundle(folder, allowance=_ALLOWED), _CPU)


def test_a_graph_with_operators_of_its_own_is_refused(
    network: HybridMedNet, graphs: tuple[bytes, bytes], folder: Path
) -> None:
    """No library that brings operators is ever registered."""
    model = onnx.load_from_string(graphs[0])
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    model.graph.node[0].domain = "elsewhere"
    _store(folder, save_graph_network(network, model.SerializeToString(), graphs[1]))

    with pytest.raises(BundleError, match="cannot be run by ONNX Runtime"):
        load_network(load_bundle(folder, allowance=_ALLOWED), _CPU)


def test_without_onnx_runtime_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(BundleError, match=r"onnxruntime is not installed: pip install 'hybridmed-gateway\[onnx\]'"):
        load_network(load_bundle(folder, allowance=_ALLOWED), _CPU)


def test_volumes_have_no_graphs(folder: Path) -> None:
    """The encoding is for images."""
    with pytest.raises(BundleError, match=r"weights\.encoding: 'int8-onnx' is for images"):
        load_volume_network(load_bundle(folder, allowance=_ALLOWED), _CPU)


def test_graphs_are_refused_unless_the_operator_allows_them(folder: Path) -> None:
    """By name, or by these very weights; the refusal gives the line for the settings."""
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    line = rf'foreign_bundles = \["cxr-pneumonia={digest}"\]'

    for allowance in (NOBODY, Allowance(("cxr-pneumonia=" + "0" * 64,))):
        with pytest.raises(BundleError, match=rf"weights\.encoding: 'int8-onnx' brings code from elsewhere.*{line}"):
            load_bundle(folder, allowance=allowance)
    allowed = load_bundle(folder, allowance=Allowance((f"cxr-pneumonia={digest}",)))
    assert allowed.encoding == ENCODING


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    """All of it would come into memory."""
    bundle = load_bundle(folder, allowance=_ALLOWED)
    os.truncate(bundle.weights_path, (512 << 20) + 1)

    with pytest.raises(BundleError, match="holds 536870913 bytes, at most 536870912"):
        load_network(bundle, _CPU)


def _without_output(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    del model.graph.output[-1]
    return model.SerializeToString()


@pytest.mark.parametrize("other", ["width", "channels", "levels"])
def test_graphs_of_another_shape_are_refused_when_they_are_opened(
    network: HybridMedNet, graphs: tuple[bytes, bytes], folder: Path, other: str
) -> None:
    """The levels, their widths and the channels of the outline are those of the network that bundle.toml describes."""
    features, segmentation = graphs
    if other == "width":
        features, segmentation = exported(_network(channels=16), _SIZE)
    elif other == "channels":
        segmentation = exported(_network(segmentation=4), _SIZE)[1]
    else:
        features = _without_output(features)
    _store(folder, save_graph_network(network, features, segmentation))
    bundle = load_bundle(folder, allowance=_ALLOWED)

    with pytest.raises(BundleError, match=r"graph\.(features|segmentation) gives \[\[1, .*expected \[\[1, "):
        load_network(bundle, _CPU)


def _greedy() -> bytes:
    """Return a graph that gives as many numbers as its input says."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["asked"], ["count"], to=kinds.INT64),
        helper.make_node("ConstantOfShape", ["count"], ["given"]),
    ]
    inputs = [helper.make_tensor_value_info("asked", kinds.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info("given", kinds.FLOAT, ["count"])]
    graph = helper.make_graph(nodes, "greedy", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_a_lack_of_memory_is_no_fault_of_the_bundle() -> None:
    """It may pass, and less at once may do: batches are halved, jobs come again."""
    own, foreign = Graph(_greedy(), Path("graph")), open_onnx(_greedy(), Path("graph"), _CPU)
    too_many = torch.tensor([2.0**48])

    assert own([torch.tensor([3.0])])[0].shape == (3,)
    with pytest.raises(DeviceFullError, match="no memory left"):
        own([too_many])
    with pytest.raises(DeviceFullError, match="no memory left"):
        foreign(too_many)
