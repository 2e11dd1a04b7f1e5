"""Findings -> DICOM: SR, SEG and heat map, each rendered once and stored.

assignment.py     what is being rendered: job, revision, predecessors; and the UIDs derived from them
source.py         the source series' headers and the geometry of its planes
modules.py        the source's patient, study and request attributes, copied byte for byte
equipment.py      the algorithm as device observer, Algorithm Identification and Contributing Equipment
procedure.py      Procedure Reported
identity.py       what all objects share: UIDs, dates, options
encoding.py       data sets -> files
groups.py         measurement groups: TID 1501, 1410, 1411
image_library.py  the images that hold findings
sr.py             Comprehensive 3D SR, TID 1500
seg.py            Segmentation
picture.py        overlay pictures for people: PNG
document/         the report as HTML and PDF for people, in English and Chinese; fonts/  what the PDF embeds
wording.py        a result in words, in both languages; figures.py  how values are written
order.py          what images say of their order and institution
heatmap.py        Grad-CAM as Secondary Capture
render.py         all of the above for one outcome
verified.py       a report that a person verified, made from the stored one; verified_seg.py,
                  verified_picture.py  a SEG and an overlay without the segments that were removed
rejection_note.py a Key Object Selection that withdraws objects (IOCM)
content.py        content items by hand; evidence.py  references by study and series; characters.py  whose text fits
summary.py        outcomes -> JSON for lists, and back
fhir_input.py     what the FHIR renderer is given
"""

from gateway.report.identity import RenderedObject, RenderOptions, outcome_role
from gateway.report.picture import render_pictures
from gateway.report.render import render_outcome

__all__ = ["RenderOptions", "RenderedObject", "outcome_role", "render_outcome", "render_pictures"]
