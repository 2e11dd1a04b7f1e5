"""DICOMweb (PS3.18) under `/dicomweb`.

app.py          create_app(...): the routes of all services, and how errors are said
qido.py         QIDO-RS: what the gateway holds
dicom_json.py   values -> DICOM JSON model (PS3.18 annex F)
parameters.py   what the parameters of a search ask for
answers.py      finished QIDO answers, valid as long as the database has not changed; marks.py  whether it has
target.py       what a path names: UIDs checked, objects located, 404 or 410
wado.py         WADO-RS: objects as stored or as Explicit VR Little Endian (transcode.py)
streaming.py    answers made of files, memory flat; multipart.py  read within bounds, written; negotiation.py  Accept
frames.py       frames and bulk data; pixels.py  where frames lie in a file
metadata.py     metadata from a cache on disk; preparing.py  made ahead; dataset_json.py  a data set -> DICOM JSON model
rendered.py     pictures and thumbnails; window.py  stored values -> grey; document.py  reports as HTML
stow.py         STOW-RS; store_response.py  its answer
rejecting.py    delete by rejection
workitems.py    UPS-RS; subscribers.py  its web sockets
"""

from gateway.web.dicomweb.app import create_app

__all__ = ["create_app"]
