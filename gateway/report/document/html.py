"""A page as one HTML file: style and pictures within it, no script, nothing from elsewhere."""

from __future__ import annotations

import base64

from jinja2 import Environment, StrictUndefined

from gateway.report.document.page import Page

_TEMPLATE = """<!DOCTYPE html>
<html lang="{{ page.tag }}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
body { font: 16px/1.5 system-ui, "Noto Sans SC", sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1d21; background: #fff; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 1.5rem 0 .25rem }
.warning { border: 2px solid #9a3412; color: #9a3412; padding: .4rem .75rem; margin: 1rem 0; font-weight: 600 }
.status { font-weight: 600; margin: .25rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 } dt { color: #4b5563 }
dd { margin: 0 } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #d1d5db; vertical-align: top }
th { color: #4b5563; font-weight: 600 } figure { margin: 1.5rem 0; break-inside: avoid } img { max-width: 100% }
figcaption, .origin { color: #4b5563; font-size: .85rem } @media print { body { margin: 0 } }
</style>
</head>
<body>
<h1>{{ page.title }}</h1>
<p class="status">{{ page.status }}</p>
<p class="warning" role="note">{{ page.warning }}</p>
<dl>
{% for label, value in page.about %}
<dt>{{ label }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
<h2>{{ page.conclusion_heading }}</h2>
{% for sentence in page.conclusion %}
<p>{{ sentence }}</p>
{% endfor %}
{% for table in page.tables %}
<h2>{{ table.heading }}</h2>
<table>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% endfor %}
{% for picture in pictures %}
<figure><img src="data:image/jpeg;base64,{{ picture }}" alt="{{ page.caption }}">
<figcaption>{{ page.caption }}</figcaption></figure>
{% endfor %}
<div class="origin">
<h2>{{ page.origin_heading }}</h2>
<dl>
{% for label, value in page.origin %}
<dt>{{ label }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
</div>
</body>
</html>
"""
_COMPILED = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_TEMPLATE)


def html_document(page: Page) -> bytes:
    """Return a page as HTML in UTF-8."""
    pictures = [base64.b64encode(each).decode("ascii") for each in page.pictures]
    return _COMPILED.render(page=page, pictures=pictures).encode("utf-8")
