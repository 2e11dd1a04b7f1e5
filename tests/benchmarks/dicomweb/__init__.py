"""DICOMweb beside Orthanc's plug-in: `python -m tests.benchmarks.dicomweb [--quick] [--out FILE]`.

cases.py    the studies that both hold: 500, one of them with a series of 500 slices
servers.py  Orthanc and the gateway, filled by C-STORE; their memory
client.py   the client: a process of its own, blocking sockets, an answer read into one buffer
growth.py   QIDO over 100,000 studies beside 500
report.py   medians, ratios, the table
"""
