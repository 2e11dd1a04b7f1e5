"""Checks of what stands in `deploy/`, for machines without a container engine or a cluster.

image.py          the Containerfile's own steps, run in a fresh root
containerfile.py  its instructions, read
conformance.py    writes the DICOM conformance statement from the program's own tables
capacity.py       from studies per day to cores, GPUs, disk and network, the arithmetic shown
"""
