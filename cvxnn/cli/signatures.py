"""Parameters of functions and classes of cvxnn, read from their source.

The help of the command line states types, choices, defaults and texts of the library. To import the
library for that would take seconds and need optional packages; to parse a few of its files takes
milliseconds.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_NUMBERS: dict[str, type] = {"bool": bool, "int": int, "float": float}
_SEQUENCES = ("Sequence", "list", "tuple")
REQUIRED: Any = object()
"""Default of a parameter that has none."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function or class.

    Parameters
    ----------
    type : type
        ``bool``, ``int`` or ``float``; ``str`` for everything else.
    choices : tuple of str
        Words that the annotation names by ``Literal``.
    repeated : bool
        Whether the parameter is a sequence of such values.
    default : object
        Default of the signature, or `REQUIRED`.
    text : str
        First sentence of its description, as plain text.
    """

    type: type
    choices: tuple[str, ...]
    repeated: bool
    default: Any
    text: str


@functools.cache
def parameters(name: str) -> Mapping[str, Parameter]:
    """Return the parameters of a function or class, without importing it.

    Parameters
    ----------
    name : str
        Dotted name of a function, class or method, such as ``"cvxnn.COALAPreferenceHead"``; names
        are followed through re-exports.

    Returns
    -------
    mapping of str to Parameter
        In the order of the signature; for a dataclass, in that of its fields.

    Raises
    ------
    LookupError
        If there is no such function or class.
    """
    module, node = _definition(name)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        raise LookupError(f"{name} is neither a function nor a class")
    texts = _texts(ast.get_docstring(node) or "")
    found = {}
    for parameter, annotation, default in _signature(node):
        kinds = list(_kinds(module, annotation))
        words = tuple(dict.fromkeys(kind for kind in kinds if isinstance(kind, str)))
        numbers = [kind for kind in kinds if isinstance(kind, type) and kind in (bool, int, float)]
        found[parameter] = Parameter(
            type=numbers[-1] if numbers else str,
            choices=words,
            repeated=tuple in kinds,
            default=REQUIRED if default is None else _value(module, default),
            text=texts.get(parameter, ""),
        )
    return found


def _definition(name: str) -> tuple[str, ast.AST]:
    """Return the definition of a dotted name and the module that it is in."""
    outer, _, attribute = name.rpartition(".")
    if not outer.rpartition(".")[2][:1].isupper():
        return _find(outer, attribute)
    module, node = _definition(outer)
    return module, next(
        entry
        for entry in ast.iter_child_nodes(node)
        if isinstance(entry, ast.FunctionDef) and entry.name == attribute
    )


def _find(module: str, name: str) -> tuple[str, ast.AST]:
    """Return the definition of a name and the module that it is in, through any re-exports."""
    for node in _statements(_tree(module).body):
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name == name:
                return module, node
            case ast.Assign(targets=[ast.Name(target)], value=value) if target == name:
                return module, value
            case ast.AnnAssign(target=ast.Name(target), value=ast.expr() as value) if (
                target == name
            ):
                return module, value
            case ast.ImportFrom():
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return _find(_absolute(module, node), alias.name)
    raise LookupError(f"{module} does not define {name}")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, with those under ``if TYPE_CHECKING``."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body)
        else:
            yield node


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """Return the module that an import statement names, in full."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if _file(module).stem == "__init__" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _file(module: str) -> Path:
    folder = _ROOT.joinpath(*module.split("."))
    # A package that loads its names when they are used lists them in a stub.
    for path in (folder / "__init__.pyi", folder / "__init__.py", folder.with_suffix(".py")):
        # An installed cvxnn lies beside other libraries, which are not to be parsed.
        if path.is_file() and module.partition(".")[0] == "cvxnn":
            return path
    raise LookupError(f"cvxnn has no module {module}")


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _signature(
    node: ast.FunctionDef | ast.ClassDef,
) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Yield name, annotation and default of each parameter."""
    if isinstance(node, ast.ClassDef):
        methods = [entry for entry in node.body if isinstance(entry, ast.FunctionDef)]
        constructor = next((entry for entry in methods if entry.name == "__init__"), None)
        if constructor is None:  # a dataclass
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id, field.annotation, field.value
            return
        node = constructor
    positional = [*node.args.posonlyargs, *node.args.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults))
    pairs = [
        *zip(positional, [*missing, *node.args.defaults], strict=True),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        if argument.arg not in ("self", "cls"):
            yield argument.arg, argument.annotation, default


def _kinds(module: str, annotation: ast.expr | None) -> Iterator[str | type]:
    """Yield number types, words of ``Literal``, and ``tuple`` for a sequence, of an annotation."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            yield from _kinds(module, left)
            yield from _kinds(module, right)
        case ast.Subscript(value=ast.Name("Literal"), slice=inner):
            words = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            yield from (word for word in map(ast.literal_eval, words) if isinstance(word, str))
        case ast.Subscript(value=ast.Name(container), slice=inner) if container in _SEQUENCES:
            yield tuple
            for entry in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                yield from _kinds(module, entry)
        case ast.Name(name) if name in _NUMBERS:
            yield _NUMBERS[name]
        case ast.Name(name) if name not in ("str", "Any"):
            try:
                place, alias = _find(module, name)
            except LookupError:  # a type of another library
                return
            if isinstance(alias, ast.expr):
                yield from _kinds(place, alias)


def _value(module: str, default: ast.expr) -> Any:
    """Return the value of a default: a literal, or a constant of the library."""
    if isinstance(default, ast.Name):
        place, constant = _find(module, default.id)
        if isinstance(constant, ast.expr):
            return _value(place, constant)
    return ast.literal_eval(default)


def _texts(docstring: str) -> dict[str, str]:
    """Return the first sentence about each parameter of a numpydoc docstring."""
    _, _, section = f"\n{docstring}\n".partition("\nParameters\n----------\n")
    section = re.split(r"^[^\n]+\n---+\n", section, maxsplit=1, flags=re.M)[0]
    entries = re.split(r"^(?=\S)", section, flags=re.M)
    texts = {}
    for entry in entries:
        head, _, body = entry.partition("\n")
        for name in head.partition(" : ")[0].split(","):
            texts[name.strip()] = _first_sentence(body)
    return texts


def _first_sentence(text: str) -> str:
    """Return the first sentence of a text in reStructuredText, without markup and full stop."""
    paragraph = " ".join(textwrap.dedent(text).strip().partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[^.]{3}\.)\s+(?=[A-Z`:])", paragraph)[0]
    sentence = re.sub(r":\w+:`([^`]*)`", lambda math: math[1].replace("\\", ""), sentence)
    sentence = re.sub(r"; see .*$", "", sentence)
    return sentence.replace("`", "").rstrip(".:")
