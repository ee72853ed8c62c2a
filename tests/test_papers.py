"""The page of the papers' claims is whole: all tables and figures, verdicts, existing records."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "papers.md").read_text("utf-8")
VERDICTS = ("**Holds**", "**In part**", "**Fails**", "**Missing**")


class Row(NamedTuple):
    """A claim of a paper, and what is known of it here."""

    section: str
    claim: str
    ours: str
    measured: str
    raw: str


def rows() -> list[Row]:
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("| ")]
        for line in lines[2:]:
            cells = [cell.strip() for cell in line.strip("| \n").split(" | ")]
            assert len(cells) == 4, line
            found.append(Row(title, *cells))
    return found


ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.claim.partition(":")[0])
def test_a_claim_has_a_verdict_and_an_existing_record(row: Row) -> None:
    assert all(cell.strip("-– ") for cell in row)
    assert row.ours.startswith(VERDICTS)
    records = re.findall(r"`((?:asv_bench|tests)/[^`]+)`", row.raw)
    # Nothing is claimed without a record, and no figure without its raw results or a test.
    assert records or (row.raw == "none" and row.ours.startswith("**Missing**"))
    for record in records:
        path, _, test = record.partition("::")
        assert (ROOT / path).is_file()
        assert not test or f"def {test}(" in (ROOT / path).read_text("utf-8")
    for script in re.findall(r"asv_bench/[\w/]+\.(?:py|sh)", row.measured):
        assert (ROOT / script).is_file()


def test_every_theorem_table_figure_and_experiment_has_one_row() -> None:
    coala = {f"Table {k}" for k in range(1, 12)} | {f"Figure {k}" for k in range(1, 4)}
    coala |= {"Proposition 1", "Theorem 1", "Theorem 2", "Algorithm 1", "Algorithm 2"}
    joint = {f"Table {k}" for k in range(1, 4)} | {f"Figure {k}" for k in range(1, 15)}
    joint |= {f"Algorithm {k}" for k in range(1, 4)} | {"Theorem 3.3", "Theorem 4.1"}
    joint |= {"Proposition A.1", "Proposition A.2"} | {f"Lemma A.{k}" for k in (3, 5, 6, 7)}
    work = {"Evaluation", "Comparison", "Data", "Presets", "Sweeps", "Joint training", "Lemmas"}
    work |= {"Joint training at scale", "Benchmarks"}
    for title, expected in (("COALA", coala), ("Joint", joint), ("What", work)):
        names = [r.claim.partition(":")[0] for r in ROWS if r.section.startswith(title)]
        assert expected <= set(names)
        assert len(names) == len(set(names))
