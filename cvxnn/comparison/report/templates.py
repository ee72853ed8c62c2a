"""Templates of the pages of reports, which lie beside this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from cvxnn._progress import seconds_text
from cvxnn.comparison.texts import bytes_text, count_text, name_of, ratio_text

_FILTERS: dict[str, Callable[..., Any]] = {
    "bytes": bytes_text,
    "count": count_text,
    "method": name_of,
    "number": lambda value: "–" if value is None else f"{value:.4g}",
    "percent": lambda value: "–" if value is None else f"{100 * value:.2g} %",
    "ratio": ratio_text,
    "seconds": seconds_text,
    "share": lambda value: f"{100 * value:.1f} %",
}


def fill_template(name: str, **values: Any) -> str:
    """Return a page: every value in it is escaped, and one that is missing is an error.

    Parameters
    ----------
    name : str
        File of the template.
    **values
        What it names.

    Returns
    -------
    str
        The HTML document.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template(name).render(values)
