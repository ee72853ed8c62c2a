"""Classes of labels: their numbers, their weights, and targets in the form of a loss."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from cvxnn import convex  # names load when first used: JAX is for fits only
from cvxnn.estimators._rows import require_range


def codes_of(
    labels: NDArray[Any], classes: NDArray[Any], name: str, remedy: str = ""
) -> NDArray[np.intp]:
    """Return the positions of labels among the classes; an error calls the labels ``name``."""
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"{name} has labels {unknown.tolist()} that the fit lacks; expected labels of "
            f"{classes.tolist()}{remedy}."
        )
    return np.searchsorted(classes, labels)


def require_two_classes(estimator: Any, classes: NDArray[Any], codes: NDArray[np.intp]) -> None:
    """Refuse targets of one class; ``codes`` index ``classes`` on the rows that count."""
    present = classes[np.unique(codes)].tolist()
    if len(present) < 2:
        found = f"only one class: {present[0]!r}" if present else "none of positive weight"
        raise ValueError(
            f"{type(estimator).__name__} needs samples of at least 2 classes; the data holds "
            f"{found}."
        )


def loss_of_classes(loss: str | convex.Loss, n_classes: int) -> convex.Loss:
    """Return the loss of a program for so many classes."""
    if isinstance(loss, str):
        if loss == "squared":
            return convex.SquaredLoss()
        # For two classes, the logistic loss of one output is the multinomial one.
        several = loss == "multinomial" and n_classes > 2
        return convex.MultinomialLoss() if several else convex.LogisticLoss()
    if loss.coupled and n_classes == 2:
        raise ValueError(
            f"loss={loss!r} couples outputs, and two classes have one output; use "
            "loss='logistic', or a loss of one output."
        )
    return loss


def gives_log_odds(loss: str | convex.Loss) -> bool:
    """Return whether scores are log-odds already, which need no temperature but of few rows."""
    if isinstance(loss, str):
        return loss != "squared"
    return type(loss) in (convex.LogisticLoss, convex.MultinomialLoss)


def class_targets(
    loss: convex.Loss, codes: NDArray[np.intp], n_classes: int, dtype: Any = None
) -> NDArray[np.floating]:
    """Return targets in the form that the loss takes.

    They are -1 and 1, or 0 and 1 where the loss couples outputs; two classes have one output, more
    have one each.
    """
    own = codes[:, None] == np.arange(n_classes)
    if loss.coupled:
        return own.astype(dtype)
    return np.where(own[:, 1:] if n_classes == 2 else own, 1, -1).astype(dtype)


def class_weights(
    class_weight: dict[Any, float] | str | None,
    classes: NDArray[Any],
    codes: NDArray[np.intp],
    weight: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return sample weights times the weight of each row's class; ``codes`` index ``classes``.

    A label that a dict lacks has weight 1, and a key that is no label here, as in a fold without
    this class, has no effect.
    """
    if class_weight is None:
        return weight
    factors = np.ones(len(classes))
    if isinstance(class_weight, dict):
        _check_class_weight(class_weight, classes)
        factors[:] = [class_weight.get(label, 1) for label in classes.tolist()]
    elif class_weight == "balanced":
        counted = codes[weight > 0]
        present = np.unique(counted)
        factors[present] = compute_class_weight(
            class_weight, classes=present, y=counted, sample_weight=weight[weight > 0]
        )
    else:
        raise ValueError(
            f"class_weight={class_weight!r}; expected None, 'balanced' or a dict from labels "
            "to weights."
        )
    with np.errstate(over="ignore"):
        product = (weight * factors[codes]).astype(weight.dtype)
    if product.any():  # weights of zero leave no classes, which says more
        require_range(product, "sample_weight times class_weight")
    return product


def _check_class_weight(class_weight: dict[Any, float], classes: NDArray[Any]) -> None:
    """Refuse weights that are no such numbers, and keys that can be labels of no part of y."""
    text = isinstance(classes.tolist()[0], str)
    strange = [key for key in class_weight if isinstance(key, str) != text]
    if strange:
        raise ValueError(
            f"class_weight has the keys {strange}, which are no labels of y; expected keys such as "
            f"{classes.tolist()}."
        )
    for value in class_weight.values():
        if not (isinstance(value, Real) and 0 <= value < np.inf):
            raise ValueError(
                f"class_weight holds {value!r}; the weights of classes must be finite and "
                "non-negative."
            )
