"""A result as a document for people, HTML and PDF, in English and Chinese: written once, stored, served by FHIR.

told.py   what a document tells
words.py  labels in both languages
page.py   what a document shows, as values (pure)
html.py   a page as one HTML file without anything from elsewhere
pdf.py    a page as PDF, with its font embedded
render.py all of them for one result; loads the library that writes PDF
"""

from __future__ import annotations

from gateway.report.document.told import Documents, RenderDocuments, Told

__all__ = ["Documents", "RenderDocuments", "Told"]
