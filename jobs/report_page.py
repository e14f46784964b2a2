"""The frame and the looks of report.html: light, dark, narrow and printed."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root {
  --paper: #fff; --raised: #f6f7f8; --ink: #1c2127; --muted: #5b6570; --line: #dfe3e7;
  --accent: #0b6b7d; --accent-rgb: 11 107 125; --pass: #1f7043; --warn: #8a5a00; --fail: #b3261e;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14181c; --raised: #1b2025; --ink: #e4e8eb; --muted: #9aa5af; --line: #2e353c;
  --accent: #5cc4d6; --accent-rgb: 92 196 214; --pass: #6cc492; --warn: #e0b057; --fail: #ff8b80;
} }
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font-size: 16px; line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial,
    "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 0 0 1.25rem; }
h2 { font-size: 1.25rem; font-weight: 650; letter-spacing: -.005em; margin: 0 0 1rem; }
h3 { font-size: .95rem; font-weight: 650; margin: 0 0 .5rem; }
p, ul { margin: 0 0 1rem; }
section { margin-top: 3rem; padding-top: 1.75rem; border-top: 1px solid var(--line); }
section > h3 { margin-top: 1.5rem; }
.kicker { color: var(--accent); font-size: .85rem; font-weight: 600; margin: 0 0 .25rem; }
.lead { font-size: 1.25rem; line-height: 1.45; max-width: 46rem; margin-bottom: .75rem; }
.findings { padding-left: 1.1rem; max-width: 50rem; }
li { margin-bottom: .3rem; } li::marker { color: var(--muted); }
.small, figcaption { color: var(--muted); font-size: .85rem; line-height: 1.5; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 1.75rem 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.tiles > div { background: var(--paper); padding: 1rem 1.1rem; }
.tiles dt { color: var(--muted); font-size: .85rem; } .tiles dd { margin: 0; }
.figure { font-size: 1.7rem; line-height: 1.3; font-weight: 600; letter-spacing: -.02em;
  overflow-wrap: normal; }
.note { padding: .6rem .9rem; border-left: 3px solid; background: var(--raised); border-radius: 0 6px 6px 0; }
.note.pass { border-color: var(--pass); } .note.warn { border-color: var(--warn); }
.note.fail { border-color: var(--fail); }
dd.pass, .status.pass { color: var(--pass); } dd.warn, .status.warn { color: var(--warn); }
dd.fail, .status.fail { color: var(--fail); } .status.not_checked { color: var(--muted); }
.scroll { overflow-x: auto; margin-bottom: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4; }
th, td { text-align: left; vertical-align: top; padding: .5rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-size: .8rem; font-weight: 500; vertical-align: bottom;
  line-height: 1.25; }
tbody th { font-weight: 500; } .n { text-align: right; }
thead th, .n, .confusion b, .confusion span { overflow-wrap: normal; }
td.n, .confusion b, .confusion span { white-space: nowrap; }
.metrics { overflow-wrap: normal; } .metrics tbody th { min-width: 9.5rem; }
.metrics td { white-space: nowrap; }
.interval { display: block; color: var(--muted); font-size: .75rem; }
.main-0 tbody tr:nth-child(1) > *, .main-1 tbody tr:nth-child(2) > *, .main-2 tbody tr:nth-child(3) > *,
.main-3 tbody tr:nth-child(4) > * { color: var(--accent); font-weight: 650; }
.metrics tbody .interval { font-weight: 400; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 2.25rem 2.5rem; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
svg.plot { display: block; width: 100%; height: auto; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; } figcaption { margin-top: .5rem; }
.legend { list-style: none; padding: 0; margin: 0 0 .5rem; color: var(--ink); }
.legend li { display: flex; align-items: center; gap: .6rem; margin: 0; }
.legend b { margin-left: auto; font-weight: 600; overflow-wrap: normal; }
.key { width: 28px; height: 8px; flex: none; fill: none; }
.plain { width: auto; min-width: 50%; }
.confusion th, .confusion td { text-align: center; vertical-align: middle; border: 0; padding: .4rem .5rem; }
.confusion tbody td { background: rgb(var(--accent-rgb) / var(--heat)); border: 2px solid var(--paper);
  padding: 1.4rem .4rem;
  border-radius: 6px; min-width: 4.2rem; }
.confusion b { display: block; font-size: 1.15rem; font-weight: 600; } .confusion span { font-size: .8rem; }
.confusion bdi, .plain bdi { display: inline-block; max-width: 9rem; overflow-wrap: anywhere; }
.confusion .corner { color: var(--muted); font-size: .8rem; white-space: nowrap; width: 1%; }
.errors { table-layout: fixed; } .errors thead th { width: 8rem; }
.errors thead th:first-child { width: 6rem; } .errors thead th:last-child { width: auto; }
.text { white-space: pre-line; } .status { white-space: nowrap; width: 1%; font-weight: 500; }
.checks th { min-width: 9rem; } .facts th { width: 14rem; color: var(--muted); }
.facts tr:first-child > * { border-top: 0; }
@media screen and (max-width: 46rem) {
  main { padding: 1.75rem 1rem 3rem; } h1 { font-size: 1.5rem; } .lead { font-size: 1.1rem; }
  .tiles { grid-template-columns: 1fr 1fr; } .tiles > div { padding: .75rem .8rem; }
  .figure { font-size: 1.35rem; }
  .plots { grid-template-columns: 1fr; }
  .metrics thead, .errors thead, .checks thead { display: none; }
  .metrics, .metrics tbody, .errors, .errors tbody, .checks, .checks tbody { display: block; }
  .metrics tr, .errors tr, .checks tr { display: grid; padding: .8rem 0;
    border-bottom: 1px solid var(--line); }
  .metrics tr { grid-template-columns: 1fr 1fr; column-gap: 1.25rem; }
  .metrics tr > *, .errors tr > *, .checks tr > * { border: 0; padding: .1rem 0; }
  .metrics th, .errors .text { grid-column: 1 / -1; padding-bottom: .25rem; }
  .metrics td { display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: .4rem; }
  .metrics td::before, .errors td[data-name]::before { content: attr(data-name); color: var(--muted);
    font-weight: 400; }
  .interval { flex-basis: 100%; }
  .errors tr { grid-template-columns: 5.5rem 1fr 1fr; column-gap: 1rem; }
  .errors td[data-name]::before { display: block; font-size: .75rem; }
  .errors td { text-align: left; min-width: 0; } .facts th { width: 8rem; }
  .confusion th, .confusion tbody td { padding: .8rem .15rem; min-width: 0; }
  .confusion .corner { white-space: normal; overflow-wrap: normal; width: 3.2rem; }
  .confusion tbody th { min-width: 3.2rem; } .confusion bdi { max-width: 5rem; }
  .confusion span { font-size: .7rem; }
}
@media print {
  :root { --paper: #fff; --raised: #fff; --ink: #000; --muted: #444; --line: #bbb;
    --accent: #0b6b7d; --accent-rgb: 11 107 125; --pass: #1f7043; --warn: #8a5a00; --fail: #b3261e; }
  html { color-scheme: light; font-size: 13px; } body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  section { margin-top: 1.5rem; padding-top: 1rem; } h2, h3 { break-after: avoid; }
  tr, .tiles { break-inside: avoid; }
  .scroll { overflow: visible; } .metrics { font-size: 7.5pt; }
  .metrics th, .metrics td { padding: .35rem .3rem; }
  .metrics tbody th { min-width: 6rem; }
}
"""
