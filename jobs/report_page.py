"""The frame of report.html: head, policy, table of contents, theme button."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.report_html import Html, Section, Words
from jobs.report_script import SCRIPT, source_for_policy
from jobs.report_style import STYLE

_PAGE = """<!doctype html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src {script_source}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<nav aria-label="{contents}"><ul>{links}</ul><button type="button" class="theme" hidden \
aria-label="{theme}" title="{theme}">◐</button></nav>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def page(title: Html, head: Html, sections: Sequence[Section], words: Words) -> str:
    """The whole document."""
    return _PAGE.format(
        lang="zh-CN" if words.lang == "zh" else "en",
        script_source=source_for_policy(),
        title=title,
        style=STYLE,
        contents=words("Contents", "目录"),
        links="".join(f'<li><a href="#{one.name}">{one.title}</a></li>' for one in sections),
        theme=words("Light or dark", "浅色或深色"),
        body="\n".join([head, *(one.html for one in sections)]),
        script=SCRIPT,
    )
