"""From last instance to result: `python -m tests.benchmarks.turnaround [--quick] [--out FILE]`.

cases.py     a chest X-ray and a CT of 100 slices, each time as a new study
bare.py      the model by itself: a process that has the bundle loaded and is given folders
pacs.py      Orthanc, watched for what is stored in it
timeline.py  what the gateway's log tells of one study's way
report.py    medians over the repeats, the table
"""
