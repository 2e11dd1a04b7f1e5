"""Broken requests for the role `web`: DICOMweb, UPS-RS, FHIR, and the forms of the worklist.

requests.py  whole requests to begin with, of every service
mutation.py  requests broken with a seed: query, path, headers, body, stored files, the stream of bytes itself
values.py    values that no client should send
peer.py      writes any bytes, and says what came back
target.py    `serve --only web` over a store with a study and its results
campaign.py  inputs sent, answers judged
"""
