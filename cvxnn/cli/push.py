"""Upload a head to the Hugging Face Hub, with a model card of what was measured.

The card states certificate, held-out accuracy, influence of length, and the embedding that the head
expects. The measurements are those that cvxnn fit wrote beside the head. A repository that is
created is private unless --no-private is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import required
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.files.json_files import read_json
from cvxnn.files.locks import check_file
from cvxnn.files.writing import read_text, write_text

HELP = "upload a head to the Hugging Face Hub (extra hub)"
EXAMPLE = "  cvxnn push head.safetensors OWNER/NAME --notes notes.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit, or cvxnn.save")
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME", help="Where to upload to")
    parser.add_argument("--notes", metavar="FILE", help="Your own text for the card, in Markdown")
    push = "cvxnn.sharing.push_to_hub"
    for name in ("private", "revision"):
        parser.add_argument(f"--{name}", **option_from(push, name))
    parser.add_argument(
        "--card-only", metavar="FILE", help="Write the card to a file, and upload nothing"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, head="HEAD", repository="OWNER/NAME")
    if len([part for part in options.repository.split("/") if part]) != 2:
        raise UsageError(f"{options.repository!r} is not of the form OWNER/NAME")
    if options.card_only is not None:
        console.made += check_file(options.card_only)
    from cvxnn.persistence import load
    from cvxnn.sharing import model_card, push_to_hub

    head = load(options.head)
    note = Path(options.head).with_suffix(".json")
    contents: dict[str, Any] = {"measurements": _measurements(note)}
    if contents["measurements"] is None:
        console.complain("warning", f"no finished {note}: the card says that nothing was measured")
    if options.notes is not None:
        contents["notes"] = read_text(options.notes)
    if options.card_only is not None:
        write_text(options.card_only, model_card(head, options.repository, **contents))
        console.show(f"wrote {options.card_only}")
        return {"status": "done", "card": options.card_only}
    console.kept = lambda: "nothing was uploaded; the same command begins again"
    contents |= {"private": options.private, "revision": options.revision}
    url = push_to_hub(head, options.repository, **contents)
    console.show(f"uploaded {url}")
    return {"status": "done", "url": url}


def _measurements(note: Path) -> dict[str, Any] | None:
    """Return what was measured of a head; None where it was not, or is not finished."""
    found = read_json(note) if note.exists() else {}
    return None if found.get("status") == "begun" or not found else found
