"""Look at a page in a browser: pictures of several widths, one in the dark, and what they cut off.

    python tests/comparison/browser.py report.html --folder pictures

needs Chromium, such as the package ``chromium`` of Debian.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = 360, 768, 1200, 1600
DARK = 1200
PROGRAMS = "chromium", "chromium-browser", "google-chrome", "chrome"
# A window is at least 500 pixels wide, a frame may have any width. What is hidden within an element
# that scrolls is cut off as well, and so is what lies outside the view box of a picture. The short
# words that name a row have to be whole.
_FRAME = """<!doctype html><meta charset="utf-8"><style>body {{ margin: 0 }}
iframe {{ border: 0; color-scheme: {scheme} }}
</style><iframe width="{width}" height="{height}" srcdoc="{page}"></iframe><script>
onload = () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument, cut = [];
  const name = e => e.tagName + ": " + e.textContent.trim().replace(/\\s+/g, " ").slice(0, 60);
  for (const e of page.body.querySelectorAll("*")) {{
    const box = e.getBoundingClientRect(), svg = e.ownerSVGElement;
    if (box.width === 0 || box.height === 0) continue;
    const room = svg && e.closest("defs, clipPath") === null ? svg.getBoundingClientRect() : null;
    if (box.right > {width} + 1 || box.left < -1) cut.push(name(e));
    else if (!svg && e.clientWidth && e.scrollWidth > e.clientWidth + 1) cut.push(name(e));
    else if (room && e.tagName === "text" && (box.right > room.right + 1 ||
      box.left < room.left - 1 || box.bottom > room.bottom + 1 || box.top < room.top - 1))
      cut.push(name(e));
  }}
  for (const e of page.querySelectorAll("tbody th")) {{
    const text = e.firstChild, range = page.createRange();
    for (const word of text ? text.textContent.matchAll(/[^\\s-]{{1,12}}(?=\\s|-|$)/g) : []) {{
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (range.getClientRects().length > 1) cut.push("WORD: " + word[0]);
    }}
  }}
  const found = {{ cut, height: page.documentElement.scrollHeight }};
  document.body.dataset.found = JSON.stringify(found);
}};
</script>"""


def find_browser() -> str | None:
    """Return the path of Chromium, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def cut_off(
    page: str, width: int, picture: Path | None = None, *, scheme: str = "light"
) -> list[str]:
    """Return the elements of a page that a width cuts off, and take a picture of the page."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"

        def show(height: int, *flags: str) -> str:
            known = {"width": width, "height": height, "scheme": scheme}
            text = _FRAME.format(page=html.escape(page), **known)
            frame.write_text(text, encoding="utf-8")
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options += [f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"]
            program = find_browser()
            assert program is not None, f"no browser; expected one of {PROGRAMS}"
            command = [program, *options, *flags, frame.as_uri()]
            return subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=300
            ).stdout

        said = re.search(r'data-found="([^"]*)"', show(800, "--dump-dom"))
        assert said is not None, "the browser did not run the page"
        found = json.loads(html.unescape(said[1]))
        if picture is not None:
            show(found["height"], f"--screenshot={picture.absolute()}")
    cut: list[str] = found["cut"]
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="for the pictures")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    wrong = False
    for width, scheme in [*((width, "light") for width in WIDTHS), (DARK, "dark")]:
        picture = options.folder / f"{options.page.stem}-{width}-{scheme}.png"
        cut = cut_off(options.page.read_text("utf-8"), width, picture, scheme=scheme)
        print(f"{width:5d} px  {len(cut)} cut off  {picture}")
        print("".join(f"          {name}\n" for name in cut), end="")
        wrong |= bool(cut)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
