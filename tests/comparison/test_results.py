"""What a comparison says and keeps."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn._progress import seconds_text
from cvxnn.comparison.measures import FEW_GROUPS, accuracy_of, mean_and_error
from cvxnn.comparison.results import Comparison, MethodResult
from cvxnn.comparison.texts import bytes_text, count_text, name_of
from cvxnn.files.json_files import write_json


def result(method: str, margins: list[float], **values: Any) -> MethodResult:
    values = {
        **accuracy_of(margins, [str(i) for i in range(len(margins))]),
        "train_accuracy": 0.9,
        "metrics": {
            "rewards/chosen": 0.5,
            "rewards/rejected": 0.25,
            "rewards/margins": float(np.mean(margins)),
        },
        "flops": {"fit": 1e9},
        "seconds": {"fit": 1.5},
        **values,
    }
    return MethodResult(method, margins=margins, **values)


def comparison(*results: MethodResult, longer: float = 0.5) -> Comparison:
    n = len(results[0].margins)
    return Comparison(
        model={"name": "tiny", "parameters": 1000, "dtype": "float32", "fingerprint": "f"},
        data={"training_pairs": 30, "held_out_pairs": n, "held_out_groups": n},
        settings={"seed": 0},
        baselines={"longer reply wins": {"accuracy": longer, "interval": [0.0, 1.0]}},
        results=results,
        groups=[str(i) for i in range(n)],
    )


@given(st.integers(1, 400), st.floats(0, 1), st.integers(1, 5))
def test_interval_is_wilsons_over_independent_pairs(n, share, copies):
    right = round(share * n)
    margins = np.repeat(np.where(np.arange(n) < right, 1.0, -1.0), copies)
    found = accuracy_of(margins, [str(i) for i in range(n) for _ in range(copies)])
    # The error has n - 1 in its denominator, so 0 < accuracy < 1 has n - 1 independent pairs.
    rate, trials = right / n, n - 1 if 0 < right < n else n
    ends = proportion_confint(rate, trials)
    assert found["interval"] == pytest.approx(ends, abs=1e-9)
    assert 0 <= found["interval"][0] <= found["accuracy"] <= found["interval"][1] <= 1


def proportion_confint(rate: float, n: int) -> tuple[float, float]:
    """Ends between which |rate - p| is at most 1.96 standard errors of p."""
    p = np.roots([1 + 1.959963984540054**2 / n, -(2 * rate + 1.959963984540054**2 / n), rate**2])
    return float(p.real.min()), float(p.real.max())


def test_few_groups_are_named():
    few = comparison(result("coala", [1.0, 1.0, -1.0])).conclusions()[0]
    assert few.startswith("The accuracy is measured on 3 conversations or prompts only")
    many = comparison(result("coala", [1.0, -1.0] * (FEW_GROUPS // 2))).conclusions()
    assert not any("only" in sentence for sentence in many)


def test_error_is_the_usual_one_where_each_pair_is_its_own_group():
    hits = np.array([1.0, 0.0, 1.0, 1.0])
    mean, error = mean_and_error(hits, list("abcd"))
    assert mean == 0.75
    assert error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_error_of_repeated_pairs_is_that_of_their_groups():
    hits, groups = np.array([1.0, 0.0, 1.0, 1.0]), list("abcd")
    repeated = mean_and_error(np.repeat(hits, 5), [g for g in groups for _ in range(5)])
    assert repeated == pytest.approx(mean_and_error(hits, groups))


@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abc")), min_size=1, max_size=20))
def test_error_agrees_with_a_loop(rows):
    values, groups = np.array([v for v, _ in rows]), [g for _, g in rows]
    total = 0.0
    for name in set(groups):
        total += sum(v - values.mean() for v, g in rows if g == name) ** 2
    n_groups = len(set(groups))
    error = mean_and_error(values, groups)[1]
    if n_groups == 1:
        assert math.isnan(error)
    else:
        total *= n_groups / (n_groups - 1)
        assert error == pytest.approx(math.sqrt(total) / len(rows), abs=1e-12)


def test_error_needs_a_group_for_each_value():
    with pytest.raises(ValueError, match="3 values for 2 groups"):
        mean_and_error(np.ones(3), ["a", "b"])


def test_difference_is_of_the_same_pairs():
    one, two = [1.0, -1.0, 1.0, 0.0], [1.0, 1.0, -1.0, -1.0]
    found = comparison(result("coala", one), result("dpo", two)).difference("coala", "dpo")
    differences = np.array([0.0, -1.0, 1.0, 0.5])
    assert found[0] == pytest.approx(differences.mean())
    assert found[1] == pytest.approx(differences.std(ddof=1) / 2)
    with pytest.raises(KeyError, match="orpo"):
        comparison(result("coala", one)).difference("coala", "orpo")


def test_conclusions_say_where_coala_falls_short():
    bad, good = [-1.0] * 90 + [1.0] * 10, [1.0] * 95 + [-1.0] * 5
    said = comparison(result("coala", bad), result("dpo", good, flops={"fit": 2e9})).conclusions()
    assert any("COALA falls short of DPO: -0.850" in line for line in said)
    assert any("0.5 times its FLOPs" in line for line in said)
    assert any("COALA does not beat the rule “longer reply wins”" in line for line in said)
    said = comparison(result("coala", good), result("dpo", bad)).conclusions()
    assert any(
        "COALA ranks more held-out pairs correctly than DPO: +0.850" in line for line in said
    )
    assert any("DPO does not beat the rule" in line for line in said)


def test_conclusions_do_not_claim_small_differences():
    one, two = [1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0]
    *_, line = comparison(result("coala", one), result("dpo", two)).conclusions()
    assert "differ by less than these held-out pairs can resolve" in line


def test_ratio_of_flops_is_to_dpo_and_absent_without_it():
    both = comparison(
        result("coala", [1.0], flops={"a": 1.0, "b": 2.0}), result("dpo", [1.0], flops={"a": 12.0})
    )
    assert both.flops_ratio("coala") == 0.25
    assert comparison(result("coala", [1.0])).flops_ratio("coala") is None


def test_written_and_read_back(tmp_path):
    written = comparison(
        result("coala", [1.0, -1.0], history={"step": [1.0, 2.0], "rewards/margins": [0.1, None]}),
        result("dpo", [1.0, 1.0], peak_memory=2.0**30),
    )
    written.write(tmp_path / "comparison.json")
    assert Comparison.read(tmp_path / "comparison.json") == written
    assert json.loads((tmp_path / "comparison.json").read_text("utf-8"))["conclusions"]


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"results": 3}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json"):
        Comparison.read(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError):
        Comparison.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    "changed",
    [
        {"groups": 5},
        {"results": [3]},
        {"results": [{"method": "coala"}]},
        {"baselines": {"longer": 0.5}},
        {"baselines": {"longer": {"accuracy": "high"}}},
    ],
)
def test_entries_of_another_type_are_refused(tmp_path, changed):
    values = comparison(result("coala", [1.0, -1.0]), result("dpo", [1.0, 1.0])).to_dict()
    write_json(tmp_path / "other.json", {**values, **changed})
    with pytest.raises(ValueError, match=r"other\.json: this is not a comparison"):
        Comparison.read(tmp_path / "other.json")


def test_table_has_a_line_for_each_method_and_baseline():
    lines = str(comparison(result("coala", [1.0, -1.0]), result("simpo", [1.0, 1.0]))).split("\n")
    assert [line.split("  ")[0] for line in lines] == [
        "method",
        "COALA",
        "SimPO",
        "longer reply wins",
    ]
    assert "DPO" not in lines[0]
    assert "0.500 [0.055, 0.945]" in lines[1]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (count_text(1.234e12), "1.23 T"),
        (count_text(999.0), "999"),
        (count_text(None), "–"),
        (count_text(0), "–"),
        (count_text(5e20), "500 E"),
        (name_of("r_dpo"), "R-DPO"),
        (name_of("orpo"), "ORPO"),
        (bytes_text(2.0**20), "1 MiB"),
        (bytes_text(270 * 2**10), "270 KiB"),
        (bytes_text(1.5 * 2**30), "1.50 GiB"),
        (bytes_text(None), "–"),
        (seconds_text(0.4231), "0.423 s"),
        (seconds_text(200.4), "3 min 20 s"),
        (seconds_text(119.7), "2 min 00 s"),
        (seconds_text(3599.4), "59 min 59 s"),
        (seconds_text(10220.0), "2 h 50 min"),
        (seconds_text(None), "–"),
    ],
)
def test_numbers_for_people(found, expected):
    assert found == expected


def test_summary_has_a_line_for_each_phase():
    bounds = {"objective": 0.25, "dual_bound": 0.2, "gap": 0.2}
    one = result(
        "coala",
        [1.0, -0.5],
        flops={"phase I": 2e9},
        seconds={"embeddings": 1.5, "phase I": 0.25},
        certificate={"phase I": bounds, "phase II": {"objective": 1.0}},
    )
    assert one.summary().splitlines() == [
        "COALA",
        "  embeddings  1.5 s, –FLOPs",
        "  phase I     0.25 s, 2 GFLOPs: objective 0.25000, lower bound 0.20000, gap 20 %",
        "  phase II    –, –FLOPs",
        "  held out    mean reward 0.500 of chosen and 0.250 of rejected replies, 0.25 apart",
    ]
