"""Both servers in one process of their own: `python -m tests.benchmarks.fhir.serving URL FOLDER PORT`."""

from __future__ import annotations

import sys
from datetime import UTC
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fhir_facade.app import create_app

from gateway.store import open_store
from tests.benchmarks.fhir.bare import add_routes


def main(url: str, folder: str, port: str) -> None:
    """Serve until killed."""
    store = open_store(url, Path(folder))
    app = FastAPI(openapi_url=None)
    app.mount("/fhir", create_app(store, zone=UTC))
    add_routes(app, store)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
