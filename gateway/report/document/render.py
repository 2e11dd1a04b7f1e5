"""One result -> its documents: HTML and PDF, in each language."""

from __future__ import annotations

from gateway.report.document.html import html_document
from gateway.report.document.page import jpegs, make_page
from gateway.report.document.pdf import pdf_document
from gateway.report.document.told import Documents, Told
from gateway.report.wording import LANGUAGES


def render_documents(told: Told) -> Documents:
    """Return the documents of one result: 'document-html-en', 'document-pdf-zh' and so on."""
    pictures = jpegs(told)
    documents: dict[str, tuple[str, bytes]] = {}
    for wording in LANGUAGES:
        page = make_page(told, pictures, wording)
        documents[f"document-html-{wording.tag}"] = ("text/html", html_document(page))
        documents[f"document-pdf-{wording.tag}"] = ("application/pdf", pdf_document(page))
    return documents
