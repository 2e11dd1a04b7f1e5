"""Volume -> model -> findings: knows no queue, no database and nothing of `gateway`.

findings.py     what a model says, in neither DICOM nor FHIR
volume.py       DICOM instances -> Volume (voxels and affine to LPS)
preread.py      instances decoded before the rest of their series has come
geometry.py     order, evenness, affine of a stack (pure)
plane.py        one image plane of a header; classic and Enhanced alike
instance.py     a header read without trusting it
pixels.py       stored values -> modality values
decode.py       one decoder for each transfer syntax; the ones that may crash, in a process of their own
codestream.py   the size that a compressed frame declares, checked before it is decoded
applicability.py what a bundle is meant for
views.py        an image in two looks: whole, then cut to the lungs
lungs.py        are these lungs? measurements of them
laplace.py      scores -> probabilities, the last layer's weights not being certain; conformal.py  label sets
novelty.py      is the image like those that were learnt from, and the right way up?
classes.py      probabilities -> findings of the label hierarchy
bundle.py       bundle.toml -> Bundle (no torch); level.py its label hierarchy; table.py reads its fields
network_table.py  its network's table, checked beside the rest
transforms.py   resample, window, letter-box; each with its inverse
grid.py         volumes onto a grid along the patient's axes, and back by the exact inverse
input_spec.py   what a network is shown: images or volumes; fit.py  whether a volume is that
volume_labels.py a volume through a network, patch by patch; measurement.py  volume, mean, share below
predict.py      Bundle + series -> findings, on a device; predict_volume.py  the same for volumes;
                series_predictor.py  what both share: batches, one outcome for each image
self_test.py    what a network says of a made-up input, at every load; device.py  CPU or GPU
saliency.py     Grad-CAM; attribution.py  pixels that a class comes from, by captum
foreign/        networks from elsewhere: TorchScript, ONNX, MONAI bundles; pinned.py  files with declared digests
networks/       one idea per file: pyramid, attention, fusion, heads, decoder, hybridmednet
training/       data, augmentation, losses, loop, calibration, evaluation
"""
