"""`/viewer`: OHIF on the same origin, told to use our own DICOMweb; where it is not installed, a page that says so.

`/viewer/studies/{uid}` opens a study with its newest segmentation laid over the images. Every other address under
`/viewer` that names no file is one of the viewer's own and gets its start page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import sqlalchemy as sa
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.engine import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.query.objects import locate
from gateway.query.visible import result_is_shown
from gateway.store import Store
from gateway.store.tables import artefact
from gateway.viewer import COMMAND, ROOT, VERSION, installed_folder

_UID = re.compile(r"[0-9.]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonc": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webapp": "application/manifest+json",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
_POLICY = (
    "default-src 'self'; "
    "script-src 'self' 'unsafe-eval'; "
    "worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; "
    "font-src 'self' data:; "
    "connect-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""What OHIF needs beyond the policy of the other pages: decoders in WebAssembly whose glue code compiles functions,
workers made from blobs, styles set by script, pictures made in the browser. Nothing comes from another host."""
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_EXTENSION = Path(__file__).parent / "assets" / "ohif.js"
_FOR_EVER = "public, max-age=31536000, immutable"
"""For files under `ROOT`, which holds their version: they are the same for all and hold no patient data."""


class Viewer:
    """The routes.

    Parameters
    ----------
    store
        Where studies and results lie.
    viewer_dir
        Where `hybridmed viewer install` puts the viewer.
    """

    def __init__(self, store: Store, viewer_dir: Path) -> None:
        self._store = store
        self._folder = installed_folder(viewer_dir)
        self._templates = Environment(loader=PackageLoader("gateway.web"), autoescape=True, undefined=StrictUndefined)
        self._config = _configuration()

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/viewer/app-config.js", self.config, methods=["GET"]),
            Route(ROOT + "{name:path}", self.file, methods=["GET"]),
            Route("/viewer/files/{name:path}", self.missing, methods=["GET"]),
            Route("/viewer/studies/{uid}", self.study, methods=["GET"]),
            Route("/viewer", self.start, methods=["GET"]),
            Route("/viewer/{place:path}", self.start, methods=["GET"]),
        ]

    def start(self, request: Request) -> Response:
        """`/viewer/…`: the start page; the viewer itself reads the address, which names the study."""
        page = self._folder / "index.html"
        if not page.is_file():
            return self._not_installed(request)
        return FileResponse(page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    def study(self, request: Request) -> Response:
        """`/viewer/studies/{uid}`: on to the viewer's own address of a study and of what to lay over it."""
        uid = request.path_params["uid"]
        if _UID.fullmatch(uid) is None:
            raise HTTPException(404, "no such study")
        place = {"StudyInstanceUIDs": uid}
        with self._store.read() as connection:
            overlay = newest_segmentation(connection, uid)
        if overlay is not None:
            place["initialSeriesInstanceUID"] = overlay
        return RedirectResponse(f"/viewer/viewer?{urlencode(place)}", status_code=307)

    def config(self, _request: Request) -> Response:
        """`/viewer/app-config.js`: the settings of the viewer."""
        return Response(self._config, media_type="text/javascript", headers={"Content-Security-Policy": _POLICY})

    def file(self, request: Request) -> Response:
        """`/viewer/files/{version}/…`: a file of the viewer, compressed where the browser takes that."""
        path = self._path(request.path_params["name"])
        if path is None:
            return self.missing(request)
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": _FOR_EVER, "Vary": "Accept-Encoding"}
        compressed = path.with_name(path.name + ".gz")
        if "gzip" in request.headers.get("accept-encoding", "") and compressed.is_file():
            return FileResponse(
                compressed, media_type=_TYPES[path.suffix], headers={**headers, "Content-Encoding": "gzip"}
            )
        return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)

    def missing(self, _request: Request) -> Response:
        """`/viewer/files/…` of another version: the page that asks for it is out of date."""
        raise HTTPException(404, "no such file of the viewer")

    def _path(self, name: str) -> Path | None:
        if _NAME.fullmatch(name) is None:
            return None
        path = (self._folder / name).resolve()
        is_ours = path.is_relative_to(self._folder.resolve()) and path.suffix in _TYPES
        return path if is_ours and path.is_file() else None

    def _not_installed(self, request: Request) -> Response:
        named = request.query_params.get("StudyInstanceUIDs", "").partition(",")[0]
        study = named if _UID.fullmatch(named) else None
        page = self._templates.get_template("no_viewer.html").render(command=COMMAND, study=study)
        return HTMLResponse(page, status_code=404)


def newest_segmentation(connection: Connection, study_instance_uid: str) -> str | None:
    """Return the Series Instance UID of the newest segmentation of ours, else of one that came with the study."""
    query = sa.select(artefact.c.series_instance_uid).where(
        artefact.c.study_instance_uid == study_instance_uid,
        artefact.c.sop_class_uid == _SEGMENTATION,
        result_is_shown,
    )
    ours: str | None = connection.scalar(query.order_by(artefact.c.id.desc()).limit(1))
    if ours is not None:
        return ours
    received = locate(connection, study_instance_uid=study_instance_uid)
    return next((one.series_instance_uid for one in reversed(received) if one.sop_class_uid == _SEGMENTATION), None)


def _configuration() -> bytes:
    """Return app-config.js; relative addresses there would be taken as relative to the page, so they are absolute."""
    settings: Mapping[str, Any] = {
        "name": "HybridMed Gateway",
        "routerBasename": "/viewer",
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "groupEnabledModesFirst": True,
        "showErrorDetails": "production",
        "investigationalUseDialog": {"option": "never"},
        "disableConfirmationPrompts": True,
        "customizationService": {"ohif.tours": {"$set": []}},
        "maxNumRequests": {"interaction": 100, "thumbnail": 5, "prefetch": 25},
        "defaultDataSourceName": "hybridmed",
        "dataSources": [_data_source()],
    }
    text = orjson.dumps(settings, option=orjson.OPT_INDENT_2).decode()
    return _SCRIPT.format(settings=text, root=ROOT, version=VERSION).encode() + _EXTENSION.read_bytes()


def _data_source() -> Mapping[str, Any]:
    return {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "hybridmed",
        "configuration": {
            "friendlyName": "HybridMed Gateway",
            "name": "hybridmed",
            "qidoRoot": "/dicomweb",
            "wadoRoot": "/dicomweb",
            "wadoUriRoot": "/dicomweb",
            "qidoSupportsIncludeField": True,
            "supportsFuzzyMatching": True,
            "supportsWildcard": True,
            "imageRendering": "wadors",
            "thumbnailRendering": "thumbnail",
            "thumbnailRequestStrategy": "fetch",
            "enableStudyLazyLoad": True,
            "dicomUploadEnabled": False,
            "omitQuotationForMultipartRequest": True,
            "singlepart": "bulkdata,video",
            "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
        },
    }


_SCRIPT = """// Made by HybridMed Gateway; OHIF {version}.
window.PUBLIC_URL = "{root}";
window.browserImportFunction = function (name) {{ return import(name); }};
window.config = {settings};
window.config.whiteLabeling = {{
  createLogoComponentFn: function (React) {{
    return React.createElement(
      "a",
      {{ href: "/worklist", className: "text-white", title: "OHIF {version}; results are not for diagnosis" }},
      "HybridMed Gateway, OHIF {version}"
    );
  }}
}};
"""
