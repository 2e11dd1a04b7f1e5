"""HTTP: FHIR mounted, health, metrics, and the pages for people.

app.py        create_app(...): routes and the layers around them
auth.py       every request passes here: who asks, and whether it may
protocol.py   HTTP on a connection, with a bound on the head of a request; wire.py  files straight to its socket
headers.py    headers that every answer carries; requests counted
readiness.py  whether the gateway can receive and process, part by part
metrics.py    counters of all roles and gauges of the database, as Prometheus reads them
pages.py      routes of the pages; rendering.py  templates and how values are written; problems.py  error pages
worklist.py   the list: filters and lines; studies.py  a study's page; results.py, trend.py  what jobs say (pure)
live.py       open pages are told of changes by server-sent events
language.py   the language of a page; texts_en.py, texts_zh.py  its texts
session.py    signed-in browsers and what a POST has to prove; sign_in.py  /login, /logout
actions.py    verify, reprocess, raise to STAT, resend: the POSTs of a study's page
viewer.py     OHIF under /viewer, and what stands there without it
intake.py     a spool and an indexer of the web process's own: what STOW-RS needs
dicomweb/     QIDO-RS, WADO-RS, STOW-RS, UPS-RS
access/       who may ask: tokens, OpenID Connect, SMART Backend Services, roles, limits
caller.py     who asks: `request.state.caller`
role.py       the role `web`: uvicorn, stopped in good order
templates/ assets/
              no address outside of this server is named in them
"""

from gateway.web.app import HttpParts, create_app
from gateway.web.role import WebRole

__all__ = ["HttpParts", "WebRole", "create_app"]
