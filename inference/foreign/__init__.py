"""Networks that were not built by this project's code: a TorchScript file, an ONNX file or a MONAI bundle.

spec.py        what bundle.toml says of one, and who allowed it (no torch)
network.py     one seam for all of them: what goes in, what comes out
torchscript.py, onnx_file.py, monai_bundle.py  one way each from checked bytes to a callable
load.py        spec -> network, shown a made-up input before it serves
predict_image.py  projection images through one; volumes go the way of our own networks
pin.py         digests and self-test into bundle.toml

A TorchScript or an ONNX file is a program, and a MONAI bundle names one. So each runs only where the operator lists the
bundle, by name or by name and digest. No pickle is read: TorchScript has a format of its own, the weights of a MONAI
bundle are safetensors or go through torch's reader for weights alone. Nothing of a MONAI bundle is executed: of its
`inference.json` the network's definition is read as plain data, its class taken from a list.

How to bring one: make a folder with the file and a `bundle.toml` (fields in `inference.bundle`; an example of each kind
stands in `tests/foreign_bundles.py`), whose `[network]` table is::

    [network]
    kind = "torchscript"                  # or "onnx", "monai"
    outputs = ["coarse", "segments"]      # what the network gives, in its order: names of levels, or "segments"
    activation = "logits"                 # ? or "probabilities": a softmax, or a sigmoid of one channel, was applied
    mean = [0.485, 0.456, 0.406]          # ? one of each input channel: the network is shown (value - mean) / std,
    std = [0.229, 0.224, 0.225]           # ? the value being what [input] makes of the image; [0.0] and [1.0] without
    orientation = "RAS"                   # volumes only: where the network's axes after the channel lead; "SPL" is
                                          # (z, y, x) of this project, "RAS" what MONAI's Orientationd gives
    definition = "configs/inference.json" # "monai" only, with its digest; metadata.json lies beside it
    definition_sha256 = "..."

Scores of a level are (B, classes), of segments (B, 1 + segments, ...) with the background first; where there are two,
one channel that tells the second will do. Then::

    hybridmed bundles pin FOLDER          # writes the digests and the self-test, and prints the line of the next step
    foreign_bundles = ["NAME=DIGEST"]     # in hybridmed.toml, or HYBRIDMED_FOREIGN_BUNDLES=NAME=DIGEST
    hybridmed bundles verify NAME
"""
