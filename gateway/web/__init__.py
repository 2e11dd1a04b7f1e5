"""HTTP: FHIR mounted, health, metrics, and the pages for people.

app.py        create_app(...): routes and the layers around them
auth.py       who may ask: bearer tokens, or the loopback alone
headers.py    headers that every answer carries; requests counted
readiness.py  whether the gateway can receive and process, part by part
metrics.py    counters of all roles and gauges of the database, as Prometheus reads them
studies.py    what the pages show, read from the database
pages.py      the study list, a study, its pictures
role.py       the role `web`: uvicorn, stopped in good order
templates/ assets/
              no address outside of this server is named in them
"""

from gateway.web.app import HttpParts, create_app
from gateway.web.role import WebRole

__all__ = ["HttpParts", "WebRole", "create_app"]
