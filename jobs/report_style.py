"""The looks of report.html: light, dark, narrow and printed."""

from __future__ import annotations

from jobs import chart_svg

_LIGHT = f"""--theme: light; --paper: #fff; --raised: #f5f7f8; --ink: #1c2127; --muted: #5b6570; --line: #dfe3e7;
  --accent: #0b6b7d; --accent-rgb: 11 107 125; --pass: #1f7043; --warn: #8a5a00; --fail: #b3261e;
  --in: #d5efdd; --out: #fbdcd9; {chart_svg.styles("light")} color-scheme: light;"""
_DARK = f"""--theme: dark; --paper: #14181c; --raised: #1b2025; --ink: #e4e8eb; --muted: #9aa5af; --line: #2e353c;
  --accent: #5cc4d6; --accent-rgb: 92 196 214; --pass: #6cc492; --warn: #e0b057; --fail: #ff8b80;
  --in: #1d4a30; --out: #5b2623; {chart_svg.styles("dark")} color-scheme: dark;"""

STYLE = (
    f"""
:root {{ {_LIGHT} }}
@media screen {{ :root[data-theme="dark"] {{ {_DARK} }} }}
@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {_DARK} }} }}
{chart_svg.rules()}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 3.5rem; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
body {
  margin: 0; background: var(--paper); color: var(--ink); font-size: 16px; line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial,
    "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 0 0 1.25rem; }
h2 { font-size: 1.3rem; font-weight: 650; letter-spacing: -.005em; margin: 0 0 1rem; }
h3 { font-size: .95rem; font-weight: 650; margin: 0 0 .5rem; }
p, ul { margin: 0 0 1rem; }
a { color: var(--accent); text-underline-offset: .15em; }
section { margin-top: 3rem; padding-top: 1.75rem; border-top: 1px solid var(--line); }
section > h3 { margin-top: 1.75rem; }
section > p { max-width: 50rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 2px; }
.kicker { color: var(--accent); font-size: .85rem; font-weight: 600; margin: 0 0 .25rem; }
.lead { font-size: 1.25rem; line-height: 1.45; max-width: 46rem; margin-bottom: .75rem; }
.finding { max-width: 46rem; }
.findings { padding-left: 1.1rem; max-width: 50rem; }
li { margin-bottom: .3rem; } li::marker { color: var(--muted); }
.small, figcaption, .means { color: var(--muted); font-size: .85rem; line-height: 1.5; }
.means { display: block; font-weight: 400; font-size: .8rem; line-height: 1.4; max-width: 32rem; }

nav { position: sticky; top: 0; z-index: 1; display: flex; align-items: center; gap: .5rem; background: var(--paper);
  border-bottom: 1px solid var(--line); padding: 0 .5rem; }
nav ul { flex: 1; display: flex; gap: .25rem; overflow-x: auto; list-style: none; margin: 0; padding: .4rem 0;
  justify-content: safe center; scrollbar-width: none; }
nav li { margin: 0; flex: none; }
nav a { display: block; padding: .3rem .6rem; border-radius: 6px; color: var(--muted); font-size: .85rem;
  text-decoration: none; white-space: nowrap; }
nav a:hover { color: var(--ink); background: var(--raised); }
nav a[aria-current] { color: var(--accent); background: var(--raised); font-weight: 600; }
button { font: inherit; color: inherit; background: none; border: 0; cursor: pointer; padding: 0; }
.theme { flex: none; width: 2.2rem; height: 2.2rem; border-radius: 6px; font-size: 1.1rem; color: var(--muted); }
.theme:hover { background: var(--raised); color: var(--ink); }

.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 1.75rem 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.tiles > div { background: var(--paper); padding: 1rem 1.1rem; }
.tiles dt { color: var(--muted); font-size: .85rem; } .tiles dd { margin: 0; }
.figure { font-size: 1.7rem; line-height: 1.3; font-weight: 600; letter-spacing: -.02em; overflow-wrap: normal; }
.note { padding: .6rem .9rem; border-left: 3px solid; background: var(--raised); border-radius: 0 6px 6px 0; }
.note.pass { border-color: var(--pass); } .note.warn { border-color: var(--warn); }
.note.fail { border-color: var(--fail); } .note.not_checked { border-color: var(--muted); }
dd.pass, .status.pass { color: var(--pass); } dd.warn, .status.warn { color: var(--warn); }
dd.fail, .status.fail { color: var(--fail); } .status.not_checked { color: var(--muted); }
.answers { margin: 0; display: grid; gap: 1.25rem; }
.answers > div { display: grid; grid-template-columns: 14rem 1fr; gap: 1.5rem; }
.answers dt { font-weight: 650; } .answers dd { margin: 0; max-width: 44rem; }
.answers ul { padding-left: 1.1rem; margin: 0; }

.scroll { overflow-x: auto; margin-bottom: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4; }
th, td { text-align: left; vertical-align: top; padding: .5rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-size: .8rem; font-weight: 500; vertical-align: bottom; line-height: 1.25; }
tbody th { font-weight: 500; } .n { text-align: right; }
thead th, .n, .confusion b, .confusion span { overflow-wrap: normal; }
td.n, .confusion b, .confusion span { white-space: nowrap; }
.interval { display: block; color: var(--muted); font-size: .75rem; font-weight: 400; }
td.of-lora { color: var(--accent); font-weight: 650; } th.of-lora { color: var(--accent); font-weight: 600; }
.metrics thead th.n { max-width: 9rem; }
.comparison td, .decision td, .categories td.n { white-space: nowrap; }
.comparison td { padding-left: .4rem; padding-right: .4rem; } .comparison tbody th { min-width: 7rem; }
.bar { background: linear-gradient(90deg, rgb(var(--accent-rgb) / .16) calc(62% * var(--share)), transparent 0); }
.groups .by { color: var(--muted); font-weight: 400; width: 9rem; } .groups .again { color: transparent; }
.groups td:last-child { padding-right: .4rem; min-width: 11rem; }

.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 2.25rem 2.5rem; }
.plots figure { max-width: 32rem; }
.plots figure:has(.confusion th:nth-child(8)) { grid-column: 1 / -1; max-width: none; }
.beside { display: grid; grid-template-columns: minmax(0, 26rem) minmax(0, 1fr); gap: 2.5rem; align-items: start; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { margin-top: .5rem; }
svg.plot { display: block; width: 100%; height: auto; overflow: hidden; }
svg text { font-size: 11px; fill: var(--muted); font-family: inherit; } svg .name { fill: var(--ink); }
.grid { stroke: var(--line); stroke-width: .8; fill: none; }
.line, .range { stroke: var(--c); fill: none; stroke-linejoin: round; } .faint { opacity: .45; stroke-width: 1; }
.range { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: none; }
.box { fill: var(--c); fill-opacity: .26; stroke: var(--paper); stroke-width: 1; stroke-dasharray: none; }
.mark { fill: var(--c); stroke: var(--c); stroke-width: 1; stroke-dasharray: none; }
.hollow { fill: var(--paper); stroke-width: 2; }
.s-majority.mark { fill: none; stroke-width: 1.6; }
.legend { list-style: none; padding: 0; margin: 0 0 .6rem; font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .6rem; margin: 0 0 .1rem; }
.legend b { margin-left: auto; font-weight: 600; overflow-wrap: normal; }
.key { width: 28px; height: 12px; flex: none; }

.confusion th, .confusion td { text-align: center; vertical-align: middle; border: 0; padding: .4rem .5rem; }
.confusion tbody td { background: rgb(var(--accent-rgb) / var(--heat)); border: 2px solid var(--paper);
  padding: 1.4rem .4rem; border-radius: 6px; min-width: 4.2rem; }
.confusion b { display: block; font-size: 1.15rem; font-weight: 600; } .confusion span { font-size: .8rem; }
.confusion bdi, .labels bdi { display: inline-block; max-width: 9rem; overflow-wrap: anywhere; }
.confusion .corner { color: var(--muted); font-size: .8rem; white-space: nowrap; width: 1%; }

.plots + * { margin-top: 2rem; } .decision { max-width: 30rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: 0 0 .6rem; }
summary { padding: .55rem .9rem; cursor: pointer; font-weight: 600; font-size: .92rem; }
summary:hover { background: var(--raised); }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > :not(summary) { margin: .75rem .9rem; }
.count { color: var(--muted); font-weight: 400; margin-left: .35rem; }
.text { white-space: pre-line; } .failures, .categories { table-layout: fixed; }
.categories th:first-child { width: 32%; } .categories th:nth-child(2) { width: 30%; } .wide { width: 46%; }
ins, del { border-radius: 2px; padding: 0 .1em; color: inherit; }
ins { background: var(--in); text-decoration: underline; }
del { background: var(--out); text-decoration: line-through; }

.filters { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin-bottom: .75rem; }
.filters[hidden] { display: none; }
.filters label { display: flex; flex-direction: column; gap: .2rem; font-size: .8rem; color: var(--muted);
  min-width: 0; }
.filters .check { flex-direction: row; align-items: center; gap: .4rem; padding-bottom: .45rem; }
.filters input[type="search"], .filters select { font: inherit; font-size: .9rem; color: var(--ink);
  background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: .35rem .5rem;
  max-width: 14rem; }
.found { margin: 0 0 .45rem auto; }
.errors { table-layout: fixed; } .errors thead th { width: 7rem; }
.errors thead th:first-child { width: 6.5rem; } .errors thead th:last-child { width: auto; }
.errors th button { display: block; width: 100%; text-align: inherit; padding: .2rem 0; }
.errors th button:hover { color: var(--ink); }
.errors th button::after { content: " ↕"; opacity: .5; }
.errors th[aria-sort="ascending"] button::after { content: " ↑"; opacity: 1; }
.errors th[aria-sort="descending"] button::after { content: " ↓"; opacity: 1; }
.errors td.n { text-align: left; }
.notes, .doubt, .twin { display: block; margin-top: .3rem; font-size: .8rem; color: var(--muted); white-space: normal; }
.row { margin-right: .5rem; }
.tag { display: inline-block; border: 1px solid var(--line); border-radius: 4px; padding: 0 .35rem;
  margin: 0 .3rem .15rem 0; }
.doubt { color: var(--warn); font-weight: 500; } .twin { border-left: 2px solid var(--line); padding-left: .6rem; }
.more button { border: 1px solid var(--line); border-radius: 6px; padding: .4rem 1rem; font-size: .9rem; }
.more button:hover { background: var(--raised); }
.status { white-space: nowrap; width: 1%; font-weight: 500; }
.parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem 2.5rem; }
.checks th { min-width: 9rem; } .facts th { width: 11rem; color: var(--muted); }

@media screen and (max-width: 60rem) {
  .beside { grid-template-columns: minmax(0, 1fr); } .beside figure { max-width: 32rem; }
}
@media screen and (max-width: 46rem) {
  main { padding: 1.75rem 1rem 3rem; } h1 { font-size: 1.5rem; } .lead { font-size: 1.1rem; }
  nav ul { justify-content: start; }
  .tiles { grid-template-columns: 1fr 1fr; } .tiles > div { padding: .75rem .8rem; }
  .figure { font-size: 1.35rem; }
  .answers > div { grid-template-columns: 1fr; gap: .2rem; }
  .stack, .stack tbody { display: block; } .stack thead { display: none; }
  .stack tr { display: grid; grid-template-columns: 1fr 1fr; column-gap: 1.25rem; padding: .7rem 0;
    border-bottom: 1px solid var(--line); }
  .stack tr[hidden], .stack td:empty { display: none; }
  .stack tr > * { border: 0; padding: .1rem 0; min-width: 0; }
  .stack th, .stack .text, .checks td { grid-column: 1 / -1; } .stack .again { display: none; }
  .stack td[data-name] { display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: .5rem;
    white-space: normal; text-align: left; }
  .stack td[data-name]::before { content: attr(data-name); color: var(--muted); font-weight: 400; font-size: .8rem; }
  .stack .interval { flex-basis: 100%; text-align: right; }
  .stack .bar { padding-right: .3rem; }
  .metrics tr, .categories tr, .comparison tr, .failures tr { grid-template-columns: minmax(0, 1fr); }
  .metrics td[data-name]::before, .comparison td[data-name]::before { margin-right: auto; }
  .metrics td[data-name], .comparison td[data-name] { flex-wrap: nowrap; }
  .metrics .interval, .comparison .interval { flex: none; width: 8.5em; }
  .errors thead { display: block; }
  .errors thead tr { display: flex; flex-wrap: wrap; gap: 0 1rem; border: 0; padding: 0; }
  .errors thead th, .errors thead th:first-child, .errors thead th:last-child { width: auto; }
  .status { width: auto; } .facts th { width: 8rem; }
  .filters label, .filters input[type="search"], .filters select { width: 100%; max-width: none; }
  .filters .check, .filters .check input { width: auto; }
  .confusion th, .confusion tbody td { padding: .8rem .15rem; min-width: 0; }
  .confusion .corner { white-space: normal; overflow-wrap: normal; word-break: keep-all; width: 3.2rem; }
  .confusion tbody th { min-width: 4rem; font-size: .8rem; } .confusion bdi { max-width: 5rem; }
  .confusion span { font-size: .7rem; }
}
.on-paper { display: none; }
@media print {
  /* The whole of both is for a screen: a demo's would take sixty pages. */
  .errors tbody tr:nth-child(n+31), .failures tbody tr:nth-child(n+4) { display: none; }
  .on-paper { display: block; }
  :root { --ink: #000; --muted: #444; --line: #bbb; }
  html { font-size: 13px; } body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  nav, .filters, .more { display: none; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  section { margin-top: 1.5rem; padding-top: 1rem; } h2, h3, summary { break-after: avoid; }
  tr, .tiles, .answers > div { break-inside: avoid; }
  details::details-content { content-visibility: visible; display: block; block-size: auto; }
  .scroll { overflow: visible; } table { font-size: 8.5pt; }
  th, td { padding: .35rem .4rem; }
  .comparison { font-size: 7pt; }
  .comparison thead th, .comparison tbody th { font-size: inherit; }
  .comparison .interval { font-size: 6pt; } .comparison th, .comparison td { padding: .3rem .25rem; }
  .plots { grid-template-columns: 1fr 1fr; }
  .beside { grid-template-columns: minmax(0, 20rem) minmax(0, 1fr); gap: 1.5rem; }
  .errors th button::after { content: ""; }
}
"""
)
