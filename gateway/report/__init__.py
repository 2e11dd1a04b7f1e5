"""Findings -> DICOM: SR, SEG and heat map, each rendered once and stored.

assignment.py   what is being rendered: job, revision, predecessors; and the UIDs derived from them
source.py       the source study's modules, copied unchanged
sr.py           Comprehensive 3D SR, TID 1500
seg.py          Segmentation
heatmap.py      Grad-CAM as Secondary Capture
picture.py      overlay pictures for people: PNG
render.py       all of the above for one outcome
"""
