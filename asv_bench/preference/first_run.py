"""The first run of the command line, on the conversations and the model that it takes by default.

    python asv_bench/preference/first_run.py --folder outputs/first_run --out first_run.jsonl

A record for ``cvxnn extract tutoring`` and one for ``cvxnn fit``, each with the lines that the
command prints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

from asv_bench.raw_results import append
from cvxnn.cli.main import main as cvxnn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for features and heads")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    features, head = (str(options.folder / name) for name in ("features", "head.safetensors"))
    for words in (["extract", "tutoring"], ["fit", features]):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = cvxnn([*words, "--output", features if words[0] == "extract" else head])
        text = printed.getvalue().replace(str(options.folder), options.folder.name)
        print(text)
        append(options.out, {"cvxnn": words[0], "exit_code": code, "lines": text.splitlines()})


if __name__ == "__main__":
    main()
