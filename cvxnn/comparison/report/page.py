"""Frame of a page: style for light and dark, tables, texts that are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root{color-scheme:light dark;--ink:#1c1f24;--soft:#5c6470;--line:#d9dde3;--back:#fff;
--card:#f6f7f9;--series-1:#1f5fbf;--series-2:#c2571a;--series-3:#2b8a5b;--series-4:#8a4fb3;--series-5:#b8336a;
--series-6:#7a6a12;--series-7:#2f8f9d;--series-8:#6b7280}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3af;--line:#363b43;--back:#15181c;
--card:#1d2126;--series-1:#7db1ff;--series-2:#ff9d5c;--series-3:#6fd3a0;--series-4:#cf9df2;
--series-5:#ff86b0;--series-6:#d8c45a;--series-7:#72d0dd;--series-8:#a3abb8}}
body{margin:0 auto;max-width:60rem;padding:2.5rem 1.25rem 5rem;background:var(--back);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:2.6rem 0 .6rem}
p,ul{max-width:42rem}.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.93rem;
font-variant-numeric:tabular-nums}caption{caption-side:bottom;text-align:left;padding-top:.6rem}
th,td{padding:.4rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600}
thead th{border-bottom:2px solid var(--line);color:var(--soft)}tr.rule td,tr.rule th
{border-top:2px solid var(--line)}.charts{display:grid;gap:1.5rem;
grid-template-columns:repeat(auto-fit,minmax(18rem,1fr))}figure{margin:0}svg{width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft)}svg .label{fill:var(--ink)}.grid{stroke:var(--line)}
.axis{stroke:var(--soft)}polyline{fill:none;stroke-width:2;stroke-linejoin:round}
svg line[class^=s]{stroke-width:2}.replies{display:grid;gap:1rem;margin:.6rem 0 2rem;
grid-template-columns:repeat(auto-fit,minmax(16rem,1fr))}.reply{background:var(--card);
border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem}.reply h3{font-size:.85rem;
margin:0 0 .4rem;color:var(--soft);display:flex;justify-content:space-between;gap:1rem}
.text{white-space:pre-wrap;overflow-wrap:anywhere}blockquote{margin:1.4rem 0 .6rem;
padding-left:1rem;border-left:3px solid var(--series-1)}details{margin-top:.8rem}
summary{cursor:pointer;color:var(--soft)}pre{background:var(--card);padding:1rem;overflow-x:auto;
font-size:.82rem;border-radius:.5rem}
@media print{body{max-width:none}.reply,figure{break-inside:avoid}}
""" + "".join(
    f".s{i}{{stroke:var(--series-{i});fill:var(--series-{i})}}polyline.s{i}{{fill:none}}"
    for i in range(1, 9)
)


def page(title: str, body: str) -> str:
    """A whole document; a policy in its head forbids it to load anything.

    Parameters
    ----------
    title : str
        Plain text.
    body : str
        HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", rule: int | None = None
) -> str:
    """A table of plain texts; `rule` is the row that begins a second part."""
    body = []
    for i, row in enumerate(rows):
        first, *rest = map(escape, row)
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        mark = ' class="rule"' if i == rule else ""
        body.append(f'<tr{mark}><th scope="row">{first}</th>{cells}</tr>')
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    lines = "\n".join(body)
    return (
        f'<div class="scroll"><table>{below}<thead><tr>{names}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def figure(picture: str, caption: str) -> str:
    """A picture (HTML) over its caption (plain text)."""
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
