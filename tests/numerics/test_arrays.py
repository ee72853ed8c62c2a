"""Classes of equal fields never share compiled code; products of wide rows, by columns."""

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import cvxnn
from cvxnn.convex import Cronos, GatedOperator, losses, penalties
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.arrays import by_columns, leaves_of, map_leaves, node_classes, register_pytree

STATIC: dict[str, Any] = {"metadata": {"static": True}}


def dataclasses(register: Any, number: int) -> list[Any]:
    """Make objects of classes that differ in nothing but their method."""
    fields = {"__annotations__": {"x": float, "mode": str}, "x": 1.0}
    made = []
    for k in range(number):
        body = {**fields, "mode": field(default="a", **STATIC), "value": lambda self, k=k: k}
        made.append(register(dataclass(frozen=True)(type("Own", (), body)))())
    return made


def test_classes_of_equal_fields_have_other_structures() -> None:
    first, second = dataclasses(register_pytree, 2)
    assert jax.tree.structure(first) == jax.tree.structure(type(first)(2.0))
    assert jax.tree.structure(first) != jax.tree.structure(second)
    assert jax.tree.structure(first) != jax.tree.structure(type(first)(mode="b"))


@pytest.mark.parametrize("register", [register_pytree, jax.tree_util.register_dataclass])
def test_code_of_one_class_serves_no_other(register: Any) -> None:
    # JAX looks code up by the structure's hash, of which it first compares 7 bits: among 200
    # classes that are equal to it, some thirty get code of another.
    @jax.jit
    def shaped(tree: Any) -> Any:
        return jax.numpy.zeros(tree.value())

    @jax.jit(static_argnums=0)
    def by_class(classes: Any, tree: Any) -> Any:
        return jax.numpy.zeros(tree.value())

    objects = dataclasses(register, 200)
    expected = [(k,) for k in range(200)]
    assert [by_class.trace(node_classes(x), x).out_info.shape for x in objects] == expected
    if register is register_pytree:
        assert [shaped.trace(x).out_info.shape for x in objects] == expected


def trees() -> list[Any]:
    operator = GatedOperator(np.ones((2, 3), np.float32), np.ones((2, 4), bool))
    program = ConvexProgram(operator, np.ones((2, 1)), 0.1, losses.HuberLoss(2.0), skip=0.5)
    own = dataclasses(register_pytree, 1)[0]
    return [program, Cronos(), own, None, 3, {"a": (own, np.float32(2))}, [None, np.ones(2)]]


@pytest.mark.parametrize("number", range(7))
def test_leaves_on_the_host_are_those_of_jax(number: int) -> None:
    """What needs no JAX agrees with JAX, which other objects are left to."""
    tree = trees()[number]
    expected, found = jax.tree.leaves(tree), leaves_of(tree)
    assert [id(leaf) for leaf in found] == [id(leaf) for leaf in expected]
    doubled, by_jax = (over(lambda leaf: 2 * leaf, tree) for over in (map_leaves, jax.tree.map))
    assert jax.tree.structure(doubled) == jax.tree.structure(by_jax)
    for ours, theirs in zip(jax.tree.leaves(doubled), jax.tree.leaves(by_jax), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pytrees_keep_static_fields_and_name_leaves() -> None:
    own = type(dataclasses(register_pytree, 1)[0])(3.0, "b")
    doubled = jax.tree.map(lambda leaf: 2 * leaf, own)
    assert (doubled.x, doubled.mode, type(doubled)) == (6.0, "b", type(own))
    [(path, leaf)] = jax.tree_util.tree_leaves_with_path(own)
    assert (jax.tree_util.keystr(path), leaf) == (".x", 3.0)


def test_classes_of_nodes_are_all_and_no_leaves() -> None:
    X = np.ones((2, 1))
    program = ConvexProgram(GatedOperator(X, X > 0), X, 0.1)
    found = node_classes((program, {"solver": Cronos()}))
    expected = {tuple, dict, ConvexProgram, GatedOperator, Cronos}
    expected |= {losses.SquaredLoss, penalties.NeuronGroupLasso, type(None)}
    assert set(found) == expected


def test_no_class_of_the_package_may_equal_another_to_jax() -> None:
    files = sorted(Path(cvxnn.__file__).parent.rglob("*.py"))
    equal = re.compile(r"tree_util\.register_dataclass|import register_dataclass")
    assert files
    assert [file for file in files if equal.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize("columns", [0, 1, 256, 257, 384, 500])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_product_by_columns_is_the_whole_product(columns: int, compiled: bool) -> None:
    X = np.random.RandomState(0).standard_normal((7, columns))
    widest = []

    def product(part: Any) -> Any:
        widest.append(part.shape[1])
        return X[:, :3].T @ (2 * part)

    found = jax.jit(partial(by_columns, product))(X) if compiled else by_columns(product, X)
    np.testing.assert_allclose(found, X[:, :3].T @ (2 * X), rtol=1e-5, atol=1e-5)
    assert max(widest) <= 256
