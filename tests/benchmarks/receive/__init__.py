"""Receiving beside Orthanc, dcmtk and pynetdicom: `python -m tests.benchmarks.receive [--quick] [--out FILE]`.

cases.py      the data sets that are sent: 0.5 MiB, 20 KiB, 200 MiB
sender.py     the sender: a program of its own, PDUs prepared before the clock starts, one process an association
receivers.py  the four receivers, each in a folder that is thrown away
usage.py      CPU seconds and memory of a receiver's processes
report.py     medians, ratios, the table
"""
