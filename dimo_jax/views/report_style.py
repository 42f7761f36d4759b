"""The look of `report.html`: one style sheet for light and dark screens, and for paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b1f27; --muted: #606774; --line: #e2e5ea; --accent: #2f5bea;
  --code: #f1f3f6; --shadow: 0 1px 2px rgb(20 24 32 / 6%), 0 4px 16px rgb(20 24 32 / 5%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1217; --card: #181c23; --ink: #e8ebf0; --muted: #98a1b0; --line: #2a303a; --accent: #8aa8ff;
    --code: #11151b; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
header, main, footer { max-width: 1200px; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2.75rem; }
h1 { margin: 0; font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; overflow-wrap: anywhere; }
h2 { margin: 0 0 0.35rem; font-size: 1.35rem; letter-spacing: -0.01em; }
.facts { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0.5rem 0 0; color: var(--muted); }
.facts b { color: var(--ink); font-weight: 600; }
.links { margin: 0.9rem 0 0; }
.links a { display: inline-block; padding: 0.45rem 1rem; border-radius: 10px; background: var(--accent);
  color: var(--ground); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 0.9rem;
  margin: 1.75rem 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 0.9rem 1.1rem;
  box-shadow: var(--shadow); }
.card .label { color: var(--muted); font-size: 0.82rem; }
.card .value { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.02em; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.card .note { color: var(--muted); font-size: 0.8rem; }
nav { position: sticky; top: 0; z-index: 2; margin-top: 1.75rem; background: var(--ground);
  border-bottom: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; max-width: 1200px; margin: 0 auto;
  padding: 0.7rem 1.5rem; list-style: none; font-size: 0.92rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin: 2.5rem 0 0; }
section > p { max-width: 75ch; margin: 0 0 1rem; color: var(--muted); white-space: pre-line; }
.media { display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--tile)), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden;
  box-shadow: var(--shadow); }
figure.wide { grid-column: 1 / -1; }
figure img, figure video { display: block; width: 100%; height: auto; max-height: 85vh; object-fit: contain;
  background: #ffffff; }
.zoom { display: block; cursor: zoom-in; }
.zoom input { position: absolute; opacity: 0; pointer-events: none; }
.zoom input:focus-visible + span { outline: 3px solid var(--accent); outline-offset: -3px; }
.zoom span { display: block; }
.zoom input:checked + span { position: fixed; inset: 0; z-index: 9; overflow: auto; cursor: zoom-out;
  background: rgb(15 18 23 / 92%); }
.zoom input:checked + span img { width: auto; min-width: 100%; max-width: none; max-height: none; }
figcaption { padding: 0.6rem 1rem 0.75rem; color: var(--muted); font-size: 0.9rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.95rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 1rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; font-size: 0.85rem; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
tr:last-child td { border-bottom: 0; }
details { margin: 2.5rem 0 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
details + details { margin-top: 0.9rem; }
summary { padding: 0.8rem 1.1rem; cursor: pointer; font-weight: 600; }
pre { margin: 0; padding: 0.9rem 1.1rem; overflow-x: auto; background: var(--code); border-top: 1px solid var(--line);
  border-radius: 0 0 12px 12px; font: 0.84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { padding-top: 2rem; padding-bottom: 2.5rem; color: var(--muted); font-size: 0.85rem; overflow-wrap: anywhere; }
@media print { .zoom input:checked + span { position: static; } }
@media print { nav { position: static; } figure, .card { break-inside: avoid; box-shadow: none; } }
"""
