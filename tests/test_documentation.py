"""The documentation is true: snippets run, names exist, defaults and figures can be checked."""

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sklearn.utils.validation

import cvxnn

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "user_guide").glob("*.md")),
]
# Modules that are not imported here: one starts the program, one is a plugin inside vLLM.
NOT_IMPORTED = {"cvxnn.cli.__main__", "cvxnn.llm.vllm_rewards"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# Snippets -----------------------------------------------------------------------------------------


class Snippet(NamedTuple):
    """A block of code in a page; ``why_not`` is the reason where a page says that it is not run."""

    line: int
    code: str
    why_not: str


def snippets(text: str, language: str) -> list[Snippet]:
    """Blocks of a language, and the comments ``<!-- not run: reason -->`` before them."""
    block = re.compile(
        rf"^(?:<!-- not run: (?P<why>[^\n]+) -->\n+)?(?P<indent> *)```{language}\n"
        r"(?P<code>.*?)^ *```$",
        re.DOTALL | re.MULTILINE,
    )
    return [
        Snippet(
            text.count("\n", 0, match.start("code")) + 1,
            textwrap.dedent(match["code"]),
            match["why"] or "",
        )
        for match in block.finditer(text)
    ]


def runnable(page: Path) -> list[Snippet]:
    return [s for s in snippets(page.read_text("utf-8"), "python") if not s.why_not]


def needs_model(page: Path) -> bool:
    return any("load_model" in snippet.code for snippet in runnable(page))


# Pages whose fits and compilations take more than 2 seconds, beside those that need a model.
LONG = {"certificate", "choosing", "classification", "coming_from", "explanations", "extending"}
LONG |= {"patterns", "persistence", "regression", "solvers", "tables", "troubleshooting"}
LONG |= {"adding_and_forgetting", "cluster", "gated"}


def is_slow(page: Path) -> bool:
    return page.stem in LONG or needs_model(page)


def test_long_pages_exist():
    assert {page.stem for page in PAGES} >= LONG


@pytest.fixture(scope="module")
def lm(packaged_model):
    """The packaged model, loaded once for all pages."""
    from cvxnn.llm import load_model

    return load_model(cache_dir=packaged_model.cache_dir)


def share_model(monkeypatch: pytest.MonkeyPatch, lm: Any) -> None:
    """Give pages a loaded model, and fewer conversations, as most of the time is its embeddings."""
    import cvxnn.datasets
    import cvxnn.llm

    conversations = cvxnn.datasets.load_tutoring()[:8]
    monkeypatch.setattr(cvxnn.datasets, "load_tutoring", lambda: conversations)
    monkeypatch.setattr(cvxnn.llm, "load_model", lambda: lm)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if is_slow(page) else [])
        # Those that need the model come last: it stays in memory from then on.
        for page in sorted(PAGES, key=needs_model)
        if runnable(page)
    ],
)
def test_snippets_run(page, tmp_path, monkeypatch, request):
    """All blocks of a page, one after the other, in an empty folder."""
    if needs_model(page):
        request.getfixturevalue("released_memory")
        share_model(monkeypatch, request.getfixturevalue("lm"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for snippet in runnable(page):
            # Blank lines in front: a traceback names the line of the page.
            source = "\n" * (snippet.line - 1) + snippet.code
            exec(compile(source, name_of(page), "exec"), namespace)
    finally:
        namespace.clear()  # functions of a page hold it, and with it models and arrays


def test_snippets_are_found_with_their_lines_and_reasons():
    text = (
        "a\n\n```python\nx = 1\n```\n\n"
        "<!-- not run: needs a GPU -->\n```python\ny\n```\n```bash\nls\n```\n"
    )
    assert snippets(text, "python") == [Snippet(4, "x = 1\n", ""), Snippet(9, "y\n", "needs a GPU")]
    assert snippets(text, "bash") == [Snippet(12, "ls\n", "")]


# Names --------------------------------------------------------------------------------------------


def named_tests(text: str) -> set[tuple[str, str]]:
    """File and function of tests, written as ``tests/test_a.py::test_b``."""
    return set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_a_page_names_exist(page):
    missing = []
    for file, name in named_tests(page.read_text("utf-8")):
        path = ROOT / file
        if not (path.exists() and f"def {name}(" in path.read_text("utf-8")):
            missing.append(f"{file}::{name}")
    assert not missing


def texts_of(source: str) -> Iterator[str]:
    """Texts of a module; what is filled in later is a null character."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            yield "".join(map(str, parts))


def messages_in(text: str) -> Iterator[str]:
    """Pieces of messages in the first column of tables of messages, between dots."""
    table = re.compile(r"^\| (?:Message|Warning|What happens) \|.*\n\|[- |]+\n((?:\|.*\n)+)", re.M)
    for rows in table.findall(text):
        for row in rows.splitlines():
            for message in re.findall(r"`([^`]+)`", row.split("|")[1]):
                pieces = re.sub(r"^\w+(?:Error|Warning): ", "", message).split("...")
                yield from (piece.strip() for piece in pieces if " " in piece.strip())


def is_said(message: str, texts: str) -> bool:
    """Whether a text has the message, up to words that are filled in."""
    words = (rf"(?:{re.escape(word)}|\S*\0\S*)" for word in message.split())
    return re.search(r"\s+".join(words), texts) is not None


def test_messages_of_tables_are_those_of_the_code():
    modules = [path.read_text("utf-8") for path in Path(cvxnn.__file__).parent.rglob("*.py")]
    modules.append(inspect.getsource(sklearn.utils.validation))  # some are scikit-learn's
    texts = "\n".join(text for module in modules for text in texts_of(module))
    found = {page: list(messages_in(page.read_text("utf-8"))) for page in PAGES}
    assert sum(map(len, found.values())) > 15
    missing = [f"{name_of(p)}: {m}" for p, ms in found.items() for m in ms if not is_said(m, texts)]
    assert not missing


def test_messages_are_found_in_tables_and_texts():
    row = "| `ValueError: ... has 3 rows ... a b` or `c d` | e |"
    table = f"| Message | Meaning |\n| --- | --- |\n{row}\n"
    assert list(messages_in(table)) == ["has 3 rows", "a b", "c d"]
    texts = "\n".join(texts_of('f"{name} has {n} rows"'))
    assert is_said("has 3 rows", texts)
    assert not is_said("has 3 columns", texts)


def resolve(name: str) -> Any:
    """Find what a dotted name stands for: a module, or something inside one."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_exist(page):
    """Every ``cvxnn.x.y`` in code font or in a reference."""
    text = page.read_text("utf-8")
    names = set(re.findall(r"[`~<](cvxnn(?:\.[A-Za-z_]\w*)+)(?=[`(>])", text))
    names |= set(re.findall(r"^ +(cvxnn(?:\.[A-Za-z_]\w*)+)$", text, re.MULTILINE))
    missing = []
    for name in sorted(names):
        try:
            resolve(name)
        except (AttributeError, ModuleNotFoundError) as error:
            missing.append(f"{name} ({error})")
    assert not missing


def links(text: str) -> Iterator[str]:
    """Relative targets of Markdown links and images, without their anchors."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#|<", target):
            yield target.partition("#")[0]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    targets = [(page.parent / target).resolve() for target in links(text)]
    assert not [str(target) for target in targets if not target.exists()]
    # A code host shows roles of Sphinx as they are typed.
    assert not re.findall(r"\{(?:doc|ref|math|py:\w+)\}`[^`]*`", text)
    if ROOT / "docs" in page.parents:
        # The site has pages of the guide, pictures, and a page of the gallery for each example,
        # to which docs/conf.py leads.
        examples = [target for target in targets if target.parent == ROOT / "examples"]
        assert all(re.match(r"plot_\w+\.py$|GALLERY_HEADER\.rst$", e.name) for e in examples)
        others = set(targets) - set(examples)
        assert not [str(target) for target in others if ROOT / "docs" not in target.parents]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_that_begin_a_paragraph_show_a_picture(page):
    """Of an example whose title they have: docs/conf.py puts its first picture below them."""
    link = r"\n\n\[(?!The gallery|The figure)([^\]]+)\]\((?:\.\./)+examples/(plot_\w+)\.py\)"
    for title, name in re.findall(link, page.read_text("utf-8")):
        source = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
        assert source.splitlines()[1] == title


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as the code host and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_headings_lead_somewhere(page):
    found = re.findall(r"\]\(([^)\s:]*)#([^)\s]+)\)", page.read_text("utf-8"))
    places = [
        ((page.parent / target).resolve() if target else page, name) for target, name in found
    ]
    assert not [f"{target}#{name}" for target, name in places if name not in anchors(target)]


def test_broken_links_of_a_site_are_found(tmp_path):
    file = ROOT / "docs" / "check_links.py"
    checker = importlib.util.module_from_spec(spec_from_file_location("check_links", file))
    checker.__spec__.loader.exec_module(checker)
    (tmp_path / "guide").mkdir()
    (tmp_path / "index.html").write_text('<h1 id="top-of-all">A</h1>', "utf-8")
    good = ["../index.html#top-of-all", "#here", "https://a.b/#c", "mailto:a@b.c", ".."]
    bad = ["../index.html#nowhere", "#gone", "page%202.html", "../pictures/a.png"]
    lines = [f'<a href="{target}">x</a>' for target in good + bad]
    (tmp_path / "guide" / "page.html").write_text('<p id="here">' + "".join(lines), "utf-8")
    assert checker.broken_links(tmp_path) == [f"guide/page.html: {target}" for target in bad]


# Defaults -----------------------------------------------------------------------------------------


def public_callables() -> Iterator[tuple[str, Any]]:
    """Public functions, classes and methods of the package, each once."""
    for info in pkgutil.walk_packages(cvxnn.__path__, "cvxnn."):
        if info.name in NOT_IMPORTED:
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != info.name:
                continue
            if inspect.isclass(value):
                yield f"{info.name}.{name}", value
                for method, function in vars(value).items():
                    if not method.startswith("_") and inspect.isfunction(function):
                        yield f"{info.name}.{name}.{method}", function
            elif inspect.isfunction(value):
                yield f"{info.name}.{name}", value


CALLABLES = dict(public_callables())


def parameters_of(documented: Any) -> Iterator[tuple[list[str], str]]:
    """Names and type of each entry in the section "Parameters" of a docstring."""
    text = inspect.getdoc(documented) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", text, re.S | re.M)
    for line in (section[1] if section else "").splitlines():
        match = re.match(r"(\*{0,2}\w[\w, *]*?)(?: : (.*))?$", line)
        if match:
            yield [name.strip(" *") for name in match[1].split(",")], match[2] or ""


def value_of(text: str) -> Any:
    """Read a documented value; text that is no literal stands for itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def default_of(documented: Any, parameter: str) -> Any:
    """Read a default from a signature; of a dataclass, make it where it is made for each object."""
    if dataclasses.is_dataclass(documented):
        fields = {field.name: field for field in dataclasses.fields(documented)}
        factory = fields[parameter].default_factory
        if factory is not dataclasses.MISSING:
            return factory()
    return inspect.signature(documented).parameters[parameter].default


def documented_defaults() -> Iterator[tuple[str, str, Any, Any]]:
    """Callable, parameter, documented default, default in the signature."""
    for name, documented in CALLABLES.items():
        for names, kind in parameters_of(documented):
            stated = re.search(r"default(?:=|: | )(.+)$", kind)
            if not stated:
                continue
            values = [stated[1]] if len(names) == 1 else re.split(r", (?![^(\[]*[)\]])", stated[1])
            if len(values) == 1:
                values = values * len(names)
            for parameter, value in zip(names, values, strict=True):
                yield name, parameter, value_of(value), default_of(documented, parameter)


def test_defaults_in_docstrings_are_those_of_the_signatures():
    found = list(documented_defaults())
    assert len(found) > 200
    wrong = [
        f"{name}: {parameter}={actual!r}, documented {stated!r}"
        for name, parameter, stated, actual in found
        if not (stated == actual or str(stated) == str(actual))
    ]
    assert not wrong, "\n".join(wrong)


def test_documented_parameters_are_those_of_the_signatures():
    wrong = []
    for name, documented in CALLABLES.items():
        stated = [parameter for names, _ in parameters_of(documented) for parameter in names]
        if stated:
            actual = [p for p in inspect.signature(documented).parameters if p != "self"]
            if sorted(stated) != sorted(actual):
                wrong.append(f"{name}: documented {sorted(stated)}, takes {sorted(actual)}")
    assert not wrong, "\n".join(wrong)


def exported() -> set[int]:
    """Identities of what the packages export, and of what the modules of the page "API" define."""
    packages = [info.name for info in pkgutil.walk_packages(cvxnn.__path__, "cvxnn.") if info.ispkg]
    modules = map(importlib.import_module, ["cvxnn", *packages])
    found = {id(getattr(m, name)) for m in modules for name in getattr(m, "__all__", ())}
    listed = re.findall(r"^   (cvxnn\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
    assert len(listed) > 20
    return found | {id(v) for name, v in CALLABLES.items() if name.rpartition(".")[0] in listed}


def described(documented: Any) -> set[str]:
    """Names that a docstring gives a type and a text."""
    entries = re.findall(
        r"^ *(\*{0,2}\w[\w, *]*)(?: : .*)?\n +\S", inspect.getdoc(documented) or "", re.M
    )
    return {name.strip(" *") for names in entries for name in names.split(",")}


def methods(owner: type) -> set[str]:
    """Names of the methods that a protocol asks for."""
    return {n for n, value in vars(owner).items() if inspect.isfunction(value) and n[0] != "_"}


def undescribed(name: str, value: Any) -> set[str]:
    """Parameters of a function, class or method that no docstring describes.

    A method may leave it to its class, or to the base class or protocol whose method it is.
    """
    owner, _, method = name.rpartition(".")
    holder = CALLABLES.get(owner)
    if is_protocol(value) or (inspect.isclass(value) and issubclass(value, enum.Enum | dict)):
        return set()  # nobody calls them with arguments of their own
    holders = []
    if holder is not None:
        public = {name for name in dir(holder) if name[0] != "_"}
        protocols = [c for c in CALLABLES.values() if is_protocol(c) and methods(c) <= public]
        if any(
            method in vars(base) for base in [*holder.__mro__[1:], *protocols] if base != holder
        ):
            return set()
        holders = list(holder.__mro__[:-1])
    elif inspect.isclass(value):
        holders = list(value.__mro__[1:-1])
    known = set().union(*map(described, [value, *holders]))
    return set(inspect.signature(value).parameters) - {"self", "cls"} - known


def is_protocol(value: Any) -> bool:
    return inspect.isclass(value) and getattr(value, "_is_protocol", False)


EXPORTED = exported()


def test_every_parameter_of_what_is_exported_has_a_text():
    wrong = []
    for name, value in CALLABLES.items():
        if EXPORTED & {id(value), id(CALLABLES.get(name.rpartition(".")[0]))}:
            wrong += [f"{name}: {parameter}" for parameter in sorted(undescribed(name, value))]
    assert not wrong, "\n".join(wrong)


def public_class(name: str) -> Any:
    (found,) = {id(v): v for k, v in CALLABLES.items() if k.rpartition(".")[2] == name}.values()
    return found


def stated_in_guide(text: str) -> Iterator[tuple[str, str, str]]:
    """Class, option and default: "`Ridge.rank = 1000`", and tables under "Options of `Ridge`"."""
    yield from re.findall(r"`([A-Z]\w+)\.(\w+) = ([^`]+)`", text)
    for title, table in re.findall(r"Options of `(\w+)`[^\n]*\n\n((?:\|[^\n]*\n)+)", text):
        for row in table.splitlines()[2:]:
            options, values = (cell.strip() for cell in row.split("|")[1:3])
            names = re.findall(r"`(\w+)`", options)
            for name, value in zip(names, values.split(", "), strict=True):
                yield title, name, value.strip("`")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_defaults_in_the_guide_are_those_of_the_signatures(page):
    text = page.read_text("utf-8")
    wrong = []
    for name, option, stated in stated_in_guide(text):
        actual = inspect.signature(public_class(name)).parameters[option].default
        if value_of(stated) != actual:
            wrong.append(f"{name}.{option} = {actual!r}, documented {stated}")
    assert not wrong
    tables = re.findall(r"([^\n]*)\n\n\| Options? \| Default", text)
    untitled = [line for line in tables if not re.search(r"Options of `\w+`", line)]
    assert not untitled, "a table of defaults needs a title such as: Options of `Cronos`"


def test_defaults_are_read_from_guides():
    text = (
        "Up to `Ridge.rank = 1000` rows.\n\nOptions of `Cronos`:\n\n"
        '| Option | Default | Use |\n| --- | --- | --- |\n| `tol`, `kind` | 1e-3, `"a"` | x |\n'
    )
    assert list(stated_in_guide(text)) == [
        ("Ridge", "rank", "1000"),
        ("Cronos", "tol", "1e-3"),
        ("Cronos", "kind", '"a"'),
    ]


def constants_in(text: str) -> Iterator[tuple[float, str]]:
    """Numbers with the constant behind each: "10,000<!-- = training.refinement._MOST_PRICED -->".

    It may be an entry of a tuple, multiplied and divided: ``_LIMIT / 2**20``, ``BENDS[-1]``.
    """
    for number, expression in re.findall(r"([\d.,]+(?:e-?\d+)?)<!-- = ([^>]+) -->", text):
        yield float(number.replace(",", "")), expression


def value_of_constant(expression: str) -> float:
    parts = re.fullmatch(r"([\w.]+)\.(\w+)((?:\[-?\d+\])?(?: [*/] \d+(?:\*\*\d+)?)*)", expression)
    assert parts, f"{expression}: expected a name such as training.refinement._MOST_PRICED"
    module, name, rest = parts.groups()
    constant = getattr(importlib.import_module(f"cvxnn.{module}"), name)
    return float(eval(f"constant{rest}", {"constant": constant}))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_constants_in_the_guide_are_those_of_the_modules(page):
    text = page.read_text("utf-8")
    found = list(constants_in(text))
    assert len(found) == text.count("<!-- = "), (
        "expected a number right before each <!-- = NAME -->"
    )
    wrong = []
    for stated, name in found:
        actual = value_of_constant(name)
        if stated != pytest.approx(actual, rel=1e-12):
            wrong.append(f"{name} = {actual:g}, documented {stated:g}")
    assert not wrong


def test_constants_are_read_from_guides():
    text = "Up to 10,000<!-- = training.pricing.N_STEPS --> rows, 1e-4<!-- = a.B / 2**20 -->, 32."
    assert list(constants_in(text)) == [(10_000, "training.pricing.N_STEPS"), (1e-4, "a.B / 2**20")]
    assert value_of_constant("training.pricing.N_STEPS") == cvxnn.training.pricing.N_STEPS
    assert value_of_constant("estimators._calibration.BENDS[-1] * 2 / 2**3") == 16.0


def test_parameters_are_read_from_docstrings():
    def documented(a, b=1, c=2, *, d="x"):
        """Return nothing.

        Parameters
        ----------
        a : array, shape (n,)
            Data: not a parameter : of its own.
        b, c : int, default=1, 2
            Numbers.
        d : {"x", "y"}, default="x"
            A word.

        Returns
        -------
        None
        """

    assert list(parameters_of(documented)) == [
        (["a"], "array, shape (n,)"),
        (["b", "c"], "int, default=1, 2"),
        (["d"], '{"x", "y"}, default="x"'),
    ]


# Raw results --------------------------------------------------------------------------------------

BENCHMARKS = ROOT / "asv_bench"
RAW_RESULTS = sorted(BENCHMARKS.rglob("*.jsonl"))
CAMPAIGNS = ROOT / "tests" / "stress"  # their records have a format of their own
PROVENANCE = {"command", "commit", "date", "machine", "versions"}


def raw_results_of(text: str) -> set[str]:
    return set(re.findall(r"(?:asv_bench|tests/stress)/[\w/]+\.jsonl", text))


def tables_of_figures(text: str) -> Iterator[str]:
    """First lines of tables of which half the cells, or more, begin as a number does."""
    for head, body in re.findall(r"^(\|.*)\n\|[ |-]+\n((?:\|.*\n?)+)", text, re.MULTILINE):
        cells = [cell.strip(" *") for row in body.splitlines() for cell in row.split("|")[2:-1]]
        numbers = [cell for cell in cells if re.match(r"[<>+−-]*\s*\d+([.,]\d+)*( |$)", cell)]
        if 2 * len(numbers) >= len(cells):
            yield head


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_of_figures_name_their_raw_results(page):
    """In the section that holds the table, so that a reader finds them."""
    without = [
        head
        for section in re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)
        for head in tables_of_figures(section)
        if not raw_results_of(section)
    ]
    assert not without, "name the raw file and its command, see CONTRIBUTING, Benchmarks"


@pytest.mark.parametrize("page", [*PAGES, *sorted(BENCHMARKS.rglob("*.md"))], ids=name_of)
def test_raw_results_exist(page):
    named = raw_results_of(page.read_text("utf-8"))
    assert named <= {name_of(path) for path in [*RAW_RESULTS, *CAMPAIGNS.glob("*.jsonl")]}


@pytest.mark.parametrize("path", RAW_RESULTS, ids=name_of)
def test_raw_results_say_how_they_were_made(path):
    assert path.stat().st_size < 200_000
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        assert record.keys() >= PROVENANCE
        (script,) = re.findall(r"^(?:python|bash) (asv_bench/[\w/]+\.(?:py|sh))", record["command"])
        assert (ROOT / script).exists()


def test_raw_results_are_named_by_a_page():
    texts = [page.read_text("utf-8") for page in [*PAGES, *BENCHMARKS.rglob("*.md")]]
    named = set().union(*map(raw_results_of, texts))
    assert {name_of(path) for path in RAW_RESULTS} <= named


def rows_without_a_record(text: str, records: list[dict[str, Any]]) -> Iterator[str]:
    """Rows of figures that no method of the records has, rounded as the row has them."""
    by_method: dict[str, list[float]] = {}
    for record in records:
        numbers = [x for x in record.values() if isinstance(x, int | float)]
        by_method.setdefault(record["method"], []).extend(numbers)
    for row in re.findall(r"^\|(?: .* )\|$", text, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        figures = [cell for cell in cells if re.fullmatch(r"\d+\.\d+", cell)]
        if figures and not any(
            all(any(is_rounded(figure, x) for x in numbers) for figure in figures)
            for numbers in by_method.values()
        ):
            yield row


def is_rounded(figure: str, number: float) -> bool:
    unit = 0.1 ** len(figure.partition(".")[2])
    return abs(float(figure) - number) <= 0.501 * unit


def test_figures_of_other_tools_are_those_of_the_raw_results():
    text = (ROOT / "docs" / "user_guide" / "which_tool.md").read_text("utf-8")
    files = [ROOT / name for name in sorted(raw_results_of(text))]
    found = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    records = [record for record in found if record.get("set", "mrbench") == "mrbench"]
    assert not list(rows_without_a_record(text, records))
    wrong = text.replace("| 0.764 | 1.8 | 22.8 |", "| 0.764 | 1.8 | 23.8 |")
    assert len(list(rows_without_a_record(wrong, records))) == 1


def figures_in(row: str) -> int:
    """Count the cells that begin with a number."""
    return sum(re.match(r"\s*[-+±]?\d", cell) is not None for cell in row.split("|"))


def misplaced_rows(text: str) -> Iterator[str]:
    """Rows of figures that stand under two different headings: one of them is not theirs."""
    first, head = {}, ""
    for line in text.splitlines():
        if not line.startswith("|"):
            head = ""
        elif not head:
            head = line
        elif figures_in(line) > 2 and first.setdefault(line, head) != head:
            yield line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_rows_of_figures_stand_under_their_own_headings(page):
    assert not list(misplaced_rows(page.read_text("utf-8")))


def test_misplaced_rows_are_found():
    rows = "| --- | --- |\n| x | 1 | 2 | 3 |\n"
    assert list(misplaced_rows(f"| a | b |\n{rows}\n| a | c |\n{rows}")) == ["| x | 1 | 2 | 3 |"]
    assert not list(misplaced_rows(f"| a | b |\n{rows}\n| a | b |\n{rows}"))


def test_tables_of_figures_are_found():
    text = (
        "| a | b | c |\n| --- | --- | --- |\n| x | **0.5** ± 0.1 | > 30 |\n\n"
        "| a | b |\n| --- | --- |\n| x | two, or 3 |\n"
    )
    assert list(tables_of_figures(text)) == ["| a | b | c |"]
