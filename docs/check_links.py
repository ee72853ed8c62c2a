"""Find links within the built site that lead nowhere.

    python docs/check_links.py docs/_build/html

`make docs` does so; `tests/test_documentation.py` checks the links that a code host shows.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Targets of a page's links, pictures and scripts, and the names that its parts have."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = {"", "top"}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.names.add(value or "")


def broken_links(folder: Path) -> list[str]:
    """Return a line for each relative link whose file or place does not exist."""
    folder = folder.resolve()
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in paths}
    found = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            known = pages.get(place)
            if not place.exists() or (known and unquote(parts.fragment) not in known.names):
                found.append(f"{path.relative_to(folder)}: {target}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(dict.fromkeys(broken_links(Path(sys.argv[1])))) or None)
