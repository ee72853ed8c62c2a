"""Model cards: what an estimator is, what was proven and measured of it, and how it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sklearn.utils.validation import check_is_fitted

from cvxnn import __version__
from cvxnn._messages import counted
from cvxnn.comparison.heads import certificate_of
from cvxnn.comparison.texts import certificate_text, name_of, share_text
from cvxnn.features.description import ENDPOINT

_OWN_MODEL = "SmolLM2-135M-Instruct."  # GGUF files of the model that load_model has by default
_USES = {
    "reward": """\
from cvxnn.llm import Embedder, load_model
from cvxnn.sharing import from_pretrained

head = from_pretrained({repository})
embedder = Embedder.from_description(load_model({model}), head.embedding)
print(head.reward(embedder.embed(["What is asked"], ["A reply"])))""",
    "endpoint": """\
from cvxnn.features import EndpointEmbedder
from cvxnn.sharing import from_pretrained

head = from_pretrained({repository})
embedder = EndpointEmbedder("http://localhost:8000/v1", head.embedding["model"])
assert embedder.description == head.embedding
print(head.reward(embedder.embed(["What is asked"], ["A reply"])))""",
    "predict": """\
from cvxnn.sharing import from_pretrained

estimator = from_pretrained({repository})
print(estimator.predict(X))  # rows of {width} features""",
}


def model_card(
    estimator: Any,
    repository: str = "OWNER/NAME",
    *,
    measurements: Mapping[str, Any] | None = None,
    notes: str = "",
) -> str:
    """Return the model card of a fitted estimator.

    It states the certificate of the fit, what was measured on held-out pairs with 95 % intervals,
    how far the length of replies explains the rewards, and what embeddings the head expects. What
    was not measured is said to be unknown.

    Parameters
    ----------
    estimator : estimator of cvxnn
        Fitted estimator.
    repository : str, default="OWNER/NAME"
        Where it is uploaded to, for the example on the card.
    measurements : mapping, optional
        Contents of the JSON file that ``cvxnn fit`` writes beside a head.
    notes : str, default=""
        Your own text, in Markdown, at the end of the card.

    Returns
    -------
    str
        The card: Markdown with a YAML header, as the Hub expects it.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If `measurements` are of another head: their certificate or embedding differs.
    """
    check_is_fitted(estimator)
    embedding = getattr(estimator, "embedding", None)
    model = None if embedding is None else _public_name(embedding["model"])
    kind = type(estimator).__name__
    if measurements is not None:
        _check_measurements(estimator, measurements)
    kind_of_use = "predict" if embedding is None else "reward"
    if embedding is not None and embedding["pooling"] == ENDPOINT:
        kind_of_use = "endpoint"
    use = _USES[kind_of_use].format(
        repository=json.dumps(repository),
        model=_as_argument(model),
        width=estimator.n_features_in_,
    )
    parts = [
        _header(estimator, model),
        f"# {repository.rpartition('/')[2]}",
        f"A `{kind}` of cvxnn {__version__}, trained by convex "
        "optimisation. The file holds numbers and JSON, and loading it runs no code.",
        f"```python\n{use}\n```",
        "## Certificate",
        *_certificate(estimator),
        "## Held-out accuracy",
        *_accuracy(measurements),
        "## Length of replies",
        *_length(measurements),
        "## Embedding",
        *_embedding(embedding, model),
    ]
    if not hasattr(estimator, "reward"):
        del parts[parts.index("## Length of replies") :]
    if hasattr(estimator, "training_record_"):
        parts.append(
            "The file has digests of the prompts and groups that the head was trained on, no "
            "texts. Whoever has a text can find out whether it was among them."
        )
    if notes.strip():
        parts += ["## Notes", notes.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _check_measurements(estimator: Any, measurements: Mapping[str, Any]) -> None:
    final = measurements.get("fit_to_all") or measurements.get("measured")
    if not isinstance(final, Mapping) or "certificate" not in final:
        raise ValueError(
            "measurements have no certificate; expected the contents of the JSON file that cvxnn "
            "fit wrote beside the head"
        )
    stated, own = final["certificate"], certificate_of(estimator)
    same = json.loads(json.dumps(own)) == stated
    if not same or measurements.get("embedding") != getattr(estimator, "embedding", None):
        raise ValueError(
            "measurements are of another head: their certificate or embedding differs; expected "
            "the JSON file that cvxnn fit wrote beside this one"
        )


def _header(estimator: Any, model: str | None) -> str:
    kinds = {"reward": "reward-model", "predict_proba": "tabular-classification"}
    kind = next((k for name, k in kinds.items() if hasattr(estimator, name)), "tabular-regression")
    lines = ["library_name: cvxnn", "tags:", "- cvxnn", "- convex-optimization", f"- {kind}"]
    if model is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        lines.append(f"base_model: {json.dumps(model)}")
    return "\n".join(["---", *lines, "---"])


def _certificate(estimator: Any) -> Iterator[str]:
    found = certificate_of(estimator)
    if not found:
        yield "None: this estimator has no bounds."
        return
    yield "\n".join(f"- {phase}: {certificate_text(bounds)}" for phase, bounds in found.items())
    prices = getattr(estimator, "prices_", None)
    under = "" if prices is None else " that satisfies the same side constraints"
    yield (
        f"No network with these activation patterns and this penalty{under} has a smaller training "
        "objective than the lower bound. This says nothing of accuracy on other data."
    )
    if prices is not None:
        yield (
            f"Side constraints on predictions of the fit: {len(prices)}. Prices, by which the "
            "objective would fall for each unit that a bound gave way: "
            f"{', '.join(f'{price:.3g}' for price in prices.ravel())}."
        )


def _accuracy(measurements: Mapping[str, Any] | None) -> Iterator[str]:
    measured = None if measurements is None else measurements["measured"]
    if measurements is None or measured is None:
        yield "Unknown: no measurements on held-out data were given."
        return
    pairs, groups = measurements["held_out_pairs"], measurements["held_out_groups"]
    of = counted(groups, "group")
    yield f"Share of {counted(pairs, 'held-out pair')}, of {of}, that are ranked correctly:"
    rows = {name_of(measured["method"]): measured, **measurements["baselines"]}
    shares = [
        f"| {name} | {share_text(row['accuracy'], row['interval'])} |" for name, row in rows.items()
    ]
    yield "\n".join(["| Rule | Accuracy with 95 % interval |", "| --- | --- |", *shares])
    if measurements.get("fit_to_all"):
        yield (
            "The head that was uploaded is fitted to the held-out pairs too; the accuracy is that "
            "of the head before."
        )


def _length(measurements: Mapping[str, Any] | None) -> Iterator[str]:
    bias = None if measurements is None else measurements.get("length_bias")
    if bias is None:
        yield "Unknown: no measurements on held-out data were given."
        return
    lines = [
        f"- mean length: {bias['chosen_length']:.0f} characters chosen, "
        f"{bias['rejected_length']:.0f} rejected"
    ]
    for name in ("longer", "shorter"):
        value = bias[f"{name}_accuracy"]
        text = "none" if value is None else f"accuracy {value:.3f}"
        pairs = counted(bias[name], "pair")
        lines.append(f"- where the chosen reply is the {name} one ({pairs}): {text}")
    if bias["correlation"] is not None:
        lines.append(f"- margin and difference in length: correlation {bias['correlation']:.2f}")
    yield "\n".join(lines)


def _embedding(embedding: Mapping[str, Any] | None, model: str | None) -> Iterator[str]:
    if embedding is None:
        yield "Unknown: the head does not say how the embeddings that it expects are made."
        return
    served = embedding["pooling"] == ENDPOINT
    said = {n: v for n, v in embedding.items() if not served or n in ("model", "pooling", "width")}
    rows = [f"| {name} | `{model if name == 'model' else v}` |" for name, v in said.items()]
    yield "\n".join(["| Setting | Value |", "| --- | --- |", *rows])
    if served:
        yield "A server made these embeddings, and alone knows how; `EndpointEmbedder` asks one."
        return
    yield "`Embedder.from_description` makes these embeddings, and refuses any other model."


def _as_argument(model: str | None) -> str:
    """Return what ``load_model`` takes: nothing for its own model, a name of the Hub, or a hint."""
    if model is None or model.startswith(_OWN_MODEL):
        return ""
    return json.dumps(model if "/" in model else f"path/to/{model}")


def _public_name(model: str) -> str:
    """Return the name of a model, without the folder of somebody's machine that it lies in."""
    is_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", model)
    return model if is_hub_name else re.split(r"[/\\]", model.rstrip("/\\"))[-1]
