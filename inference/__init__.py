"""Volume -> model -> findings: knows no queue, no database and nothing of `gateway`.

findings.py     what a model says, in neither DICOM nor FHIR
volume.py       DICOM instances -> Volume (voxels and affine to LPS)
pixels.py       one frame's stored values -> modality values
bundle.py       bundle.toml -> Bundle (no torch)
transforms.py   resample, window, letter-box; each with its inverse
predict.py      Bundle + Volume -> findings, on a device
networks/       one idea per file: pyramid, attention, fusion, heads, decoder, hybridmednet
training/       data, augmentation, losses, loop, calibration, evaluation
"""
