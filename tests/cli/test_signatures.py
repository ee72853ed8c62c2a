"""Parameters read from source are those that Python knows."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

from cvxnn.cli.option_building import option_from
from cvxnn.cli.option_types import number_or_word, positive
from cvxnn.cli.signatures import REQUIRED, parameters

FUNCTIONS = [
    "cvxnn.COALAPreferenceHead",
    "cvxnn.comparison.compare",
    "cvxnn.llm.Embedder",
    "cvxnn.llm.MemoryPlan.report",
    "cvxnn.llm.FineTuningConfig",
    "cvxnn.llm.Guidance",
    "cvxnn.llm.load_model",
    "cvxnn.preference.loss_functions.r_dpo",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names_and_defaults_are_those_of_the_signature(name):
    signature = inspect.signature(pkgutil.resolve_name(name))
    expected = {
        parameter: REQUIRED if entry.default is inspect.Parameter.empty else entry.default
        for parameter, entry in signature.parameters.items()
        if parameter != "self"
    }
    found = parameters(name)
    assert {parameter: entry.default for parameter, entry in found.items()} == expected
    assert list(found) == list(expected)


def test_types_and_choices_are_those_of_the_annotation():
    head = parameters("cvxnn.COALAPreferenceHead")
    assert (head["loss"].type, set(head["loss"].choices)) == (str, {"pairwise", "pointwise"})
    assert (head["beta"].type, head["beta"].choices) == (float, ())
    assert head["max_iter"].type is int
    assert head["fit_intercept"].type is bool
    # An alias that is defined in another file.
    assert {"local", "adaptive", "gaussian", "data"} <= set(head["patterns"].choices)
    stop = parameters("cvxnn.llm.Guidance")["stop"]
    assert (stop.type, stop.repeated) == (str, True)


def test_texts_are_the_first_sentence_without_markup():
    text = parameters("cvxnn.llm.Guidance")["tau"].text
    assert "exp(s_j / tau)" in text
    for mark in ("`", ":math:", "\\", "\n"):
        assert mark not in text
    assert parameters("cvxnn.llm.FineTuningConfig")["lora_r"].text == "Rank of the adapters"
    row = parameters("cvxnn.evaluation.Judgement")
    assert row["output_a"].text
    assert row["output_a"].text == row["output_b"].text  # documented together
    assert parameters("cvxnn.comparison.compare")["lm"].text.count(".") == 0


def test_nothing_is_imported():
    code = (
        "import sys\nfrom cvxnn.cli.signatures import parameters\n"
        f"for name in {FUNCTIONS}:\n    parameters(name)\n"
        "print({'numpy', 'jax', 'torch', 'cvxnn.llm', 'cvxnn.comparison'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("name", ["cvxnn.NoSuchHead", "cvxnn.nowhere.head", "cvxnn.__version__"])
def test_unknown_names_are_an_error(name):
    with pytest.raises(LookupError, match=name.rpartition(".")[0]):
        parameters(name)


def test_options_follow_the_annotation():
    head = "cvxnn.COALAPreferenceHead"
    assert option_from(head, "loss")["choices"] == parameters(head)["loss"].choices
    assert option_from(head, "max_iter")["type"] is positive
    assert option_from(head, "beta")["type"]("0.5") == 0.5
    assert option_from("cvxnn.llm.Guidance", "stop")["action"] == "append"


def test_a_number_or_a_word():
    parse = number_or_word(float, ("auto",))
    assert parse("auto") == "auto"
    assert parse("0.5") == 0.5
    with pytest.raises(ValueError, match="much"):
        parse("much")
