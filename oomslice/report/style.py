# SPDX-License-Identifier: LGPL-2.1-or-later
"""The style of the page: light and dark as the reader's machine is set, one column on a phone, black on white in print.

Colours of text have a contrast of at least 4.5 to their ground, those of lines at least 3 (WCAG 2.2, 1.4.3 and 1.4.11).
"""

STYLE = """
:root { color-scheme: light dark;
  --ground: #ffffff; --panel: #f4f5f7; --text: #1b1f24; --soft: #565d66; --rule: #c9ced6; --link: #0b57c2;
  --c0: #b3261e; --c1: #0b57c2; --c2: #1a7a3c; --c3: #8a5a00; --c4: #7b3fb5; --c5: #006a72;
  --limit: #8f1d16; --mark: #565d66; --choice: #fbe9e7; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171b; --panel: #1e2329; --text: #e7eaee; --soft: #a8b0ba; --rule: #3d454f; --link: #8ab4f8;
  --c0: #ff8a80; --c1: #8ab4f8; --c2: #7bd69a; --c3: #f0c04f; --c4: #d3a6ff; --c5: #63d6df;
  --limit: #ffaba3; --mark: #a8b0ba; --choice: #40211f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.5rem 0 0.5rem; }
h3 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
a { color: var(--link); }
.lead { font-size: 1.15rem; }
.soft, figcaption, caption { color: var(--soft); }
.unit, code, pre { font-family: ui-monospace, monospace; font-size: 0.95em; }
.case + .case { border-top: 2px solid var(--rule); margin-top: 3rem; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 0.75rem; margin: 1rem 0; }
dl.figures div { background: var(--panel); padding: 0.6rem 0.8rem; border-radius: 0.4rem; }
dl.figures dt { color: var(--soft); font-size: 0.9rem; }
dl.figures dd { margin: 0; }
dl.figures strong { font-size: 1.15rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem;
  align-items: start; }
figure { margin: 0; padding: 0.75rem; border: 1px solid var(--rule); border-radius: 0.4rem; max-width: 36rem; }
figure h4 { margin: 0 0 0.25rem; font-size: 1rem; }
figure svg[role=img] { display: block; width: 100%; height: auto; }
figcaption { font-size: 0.9rem; margin-top: 0.25rem; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif;
  paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
svg .bar-label { fill: var(--text); }
svg .grid { stroke: var(--rule); stroke-width: 0.7; }
svg .axis { stroke: var(--soft); }
svg .mark { stroke: var(--mark); stroke-dasharray: 2 2; }
svg .mark-label { fill: var(--text); font-weight: 600; }
svg .limit { stroke: var(--limit); stroke-width: 1.2; stroke-dasharray: 6 3; }
svg .limit-label { fill: var(--limit); }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .line.guide { stroke-width: 1; stroke-dasharray: 1 3; }
svg .s0 { stroke: var(--c0); } svg .s1 { stroke: var(--c1); } svg .s2 { stroke: var(--c2); }
svg .s3 { stroke: var(--c3); } svg .s4 { stroke: var(--c4); } svg .s5 { stroke: var(--c5); }
svg .line.s2 { stroke-dasharray: 3 2; }
svg .line.s3 { stroke-dasharray: 9 3 2 3; }
svg .line.s4 { stroke-dasharray: 1 3; stroke-linecap: round; } svg .line.s5 { stroke-dasharray: 12 4; }
svg .line.guide { stroke-dasharray: 1 3; }
svg .dot { fill: var(--ground); stroke-width: 2; }
svg .bar.core { fill: var(--c1); } svg .bar.step { fill: var(--c2); } svg .bar.bad { fill: var(--c0); }
svg .bar.wait { fill: var(--c3); }
svg .in-force { fill: none; stroke: var(--c2); stroke-dasharray: 3 2; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; margin: 0.25rem 0 0; padding: 0;
  font-size: 0.9rem; }
.swatch { vertical-align: middle; margin-right: 0.35rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; font-size: 0.95rem; }
caption { text-align: left; padding: 0.25rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; overflow-wrap: normal; }
.short { white-space: nowrap; }
/* A name of a usual length stays in one line. */
tbody th { font-weight: 400; min-width: 11rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.chosen { background: var(--choice); }
tr.chosen th { font-weight: 700; }
pre { background: var(--panel); padding: 0.5rem 0.75rem; border-radius: 0.4rem; white-space: pre-wrap;
  margin: 0.25rem 0; -webkit-user-select: all; user-select: all; }
details { margin: 0.5rem 0; }
summary { cursor: pointer; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 0.5rem; font-size: 0.9rem; }
@media (max-width: 40rem) {
  svg text { font-size: 13px; }
  body, figure { padding: 0.6rem; }
  /* A row becomes a card; the roles in the markup keep it a table for those who hear it. */
  table, tbody, tr, th, td, caption { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { border-bottom: 1px solid var(--rule); padding: 0.4rem 0.5rem; }
  th, td { border: 0; padding: 0.1rem 0; text-align: left; min-width: 0; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
  .number { text-align: left; }
}
@media print {
  :root { color-scheme: light; --ground: #fff; --panel: #fff; --text: #000; --soft: #333; --rule: #999; --link: #000;
    --c0: #b3261e; --c1: #0b57c2; --c2: #1a7a3c; --c3: #8a5a00; --c4: #7b3fb5; --c5: #006a72;
    --limit: #8f1d16; --mark: #444; --choice: #eee; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .pictures { grid-template-columns: repeat(2, 1fr); }
  figure, tr, pre, dl.figures div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  pre, dl.figures div { border: 1px solid var(--rule); }
  details { display: none; }
  .case + .case { break-before: page; }
}
"""
