"""Studies with people: the sheet hides the systems, the key fits it, the scores are right."""

import csv
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.evaluation import (
    Answers,
    Study,
    StudyKey,
    StudyQuestion,
    fleiss_kappa,
    make_study,
    read_answers,
    read_key,
    score_study,
    write_study,
)

SYSTEMS = ("COALA", "DPO", "ORPO", "SFT")
VOID = {"meta", "input", "br"}


def questions(n: int = 6, systems: tuple[str, ...] = SYSTEMS) -> list[StudyQuestion]:
    return [
        StudyQuestion(
            f"Question <{i}> & more?",
            {name: f"reply {i}.{k}" for k, name in enumerate(systems)},
            data_set="Edu" if i % 2 else "IMDb",
        )
        for i in range(n)
    ]


@pytest.fixture
def study() -> Study:
    return make_study(questions())


def written(study: Study, folder: Path) -> tuple[Path, Path]:
    write_study(study, folder / "sheet", folder / "key.json")
    return folder / "sheet", folder / "key.json"


def votes_for(key: StudyKey, system: str) -> dict[str, str]:
    """Return the letter of a system in each question."""
    return {
        row.id: next(letter for letter, names in row.options.items() if system in names)
        for row in key.questions
    }


class Page(HTMLParser):
    """Parser that checks that tags are balanced and collects questions, options and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.radios: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.replies: list[str] = []
        self.ids: list[str] = []
        self.reading = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "input" and values["type"] == "radio":
            self.radios.append((values["name"], values["value"]))
        self.links += [values[name] for name in ("src", "href") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if values.get("class") == "reply":
            self.reading = True
            self.replies.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.reading = False

    def handle_data(self, data: str) -> None:
        if self.reading:
            self.replies[-1] += data


def test_page_is_well_formed_and_asks_everything(study: Study, tmp_path: Path) -> None:
    sheet, _ = written(study, tmp_path)
    page = Page((sheet / "sheet.html").read_text("utf-8"))
    assert page.open == []
    assert page.links == []  # nothing is loaded from anywhere
    assert page.radios == [(item.id, letter) for item in study.items for letter in "ABCD"]
    assert page.replies == [text for item in study.items for text in item.options]
    assert len(page.ids) == len(set(page.ids))
    assert "{{" not in (sheet / "sheet.html").read_text("utf-8")


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(str.strip))
def test_any_text_is_shown_as_text(text: str) -> None:
    from cvxnn.evaluation.study_sheet import _page, _table

    study = make_study(
        [StudyQuestion("p", {"sys1": "</label>" + text, "sys2": "{{title}}<script>"})]
    )
    page = Page(_page(study))
    assert page.open == []
    shown = {reply.replace("\ufffd", "") for reply in page.replies}
    assert "{{title}}<script>" in shown
    assert len(page.radios) == 2
    rows = list(csv.reader(io.StringIO(_table(study), newline="")))
    assert len({len(row) for row in rows}) == 1


def test_sheet_does_not_name_systems_data_sets_or_order(study: Study, tmp_path: Path) -> None:
    sheet, _ = written(study, tmp_path)
    names = sorted(path.name for path in sheet.iterdir())
    assert names == ["instructions.txt", "sheet.csv", "sheet.html"]
    for name in names:
        text = (sheet / name).read_text("utf-8")
        for hidden in (*SYSTEMS, "Edu", "IMDb"):
            assert hidden.casefold() not in text.casefold(), (name, hidden)


def test_sheet_knows_nothing_of_names() -> None:
    """Systems with other names, in the same order, give the same sheet."""
    first = make_study(questions())
    second = make_study(questions(systems=("A1", "B1", "C1", "D1")))
    assert first.items == second.items
    assert first.key.sheet == second.key.sheet
    assert first.key != second.key


def test_order_is_random() -> None:
    study = make_study(questions(400), seed=3)
    places = [votes_for(study.key, "COALA")[row.id] for row in study.key.questions]
    counts = [places.count(letter) for letter in "ABCD"]
    assert min(counts) > 60  # 100 expected, standard deviation 8.7
    shown = [int(item.prompt.split("<")[1].split(">")[0]) for item in study.items]
    assert sorted(shown) == list(range(400))
    assert abs(np.corrcoef(shown, range(400))[0, 1]) < 0.2


@given(st.integers(0, 1000))
def test_same_seed_same_sheet(seed: int) -> None:
    rows = questions(3)
    turned = [replace(row, outputs=dict(reversed(row.outputs.items()))) for row in rows]
    assert make_study(rows, seed=seed).items == make_study(turned, seed=seed).items
    assert make_study(rows, seed=seed) == make_study(rows, seed=seed)


def test_other_seed_other_sheet() -> None:
    assert make_study(questions()).key.sheet != make_study(questions(), seed=1).key.sheet


def test_key_tells_who_wrote_what(study: Study, tmp_path: Path) -> None:
    _, path = written(study, tmp_path)
    key = read_key(path)
    assert key == study.key
    replies = {f"q{i}": item.options for i, item in enumerate(study.items, start=1)}
    by_prompt = {question.prompt: question for question in questions()}
    for row in key.questions:
        for letter, names in row.options.items():
            text = replies[row.id]["ABCD".index(letter)]
            assert {by_prompt[row.prompt].outputs[name] for name in names} == {text}
    assert [row.prompt for row in key.questions] == [row.prompt for row in questions()]


def test_changed_key_is_noticed(study: Study, tmp_path: Path) -> None:
    _, path = written(study, tmp_path)
    content = json.loads(path.read_text())
    options = content["questions"][0]["options"]
    options["A"], options["B"] = options["B"], options["A"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="were changed after cvxnn wrote them"):
        read_key(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="is not the key of a study"):
        read_key(path)


def test_key_is_kept_apart_and_not_lost(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        write_study(study, tmp_path, tmp_path / "keys" / "key.json")
    assert list(tmp_path.iterdir()) == []
    _, path = written(study, tmp_path)
    written(study, tmp_path)  # the same again is fine
    with pytest.raises(FileExistsError, match="key of another sheet"):
        written(make_study(questions(), seed=1), tmp_path)
    assert read_key(path) == study.key


def test_names_in_texts_are_refused() -> None:
    good = questions(1)[0]
    for bad in (
        replace(good, prompt="What is sft?"),
        replace(good, outputs={**good.outputs, "SFT": "I am (DPO)."}),
        replace(good, task="Is COALA best?"),
    ):
        with pytest.raises(ValueError, match=r"question 0: .* contains .* not be blind"):
            make_study([bad])
    with pytest.raises(ValueError, match="'title' contains 'ORPO'"):
        make_study([good], title="ORPO?")
    make_study([replace(good, prompt="Is it adopted?")])  # part of a word is no name


def test_refused_questions() -> None:
    good = questions(2)
    with pytest.raises(ValueError, match="no questions"):
        make_study([])
    with pytest.raises(ValueError, match="questions 0 and 2 are equal"):
        make_study([*good, good[0]])
    with pytest.raises(ValueError, match=r"question 1 has outputs of .* expected the same systems"):
        make_study([good[0], replace(good[1], outputs={"COALA": "x"})])
    with pytest.raises(ValueError, match="1 different replies"):
        make_study([replace(good[0], outputs=dict.fromkeys(SYSTEMS, "x"))])
    with pytest.raises(ValueError, match="'reply of SFT' is empty"):
        make_study([replace(good[0], outputs={**good[0].outputs, "SFT": " "})])
    with pytest.raises(ValueError, match="'consent' is empty"):
        make_study(good, consent="")


def test_white_space_gives_nobody_away() -> None:
    study = make_study([StudyQuestion("p", {"sys1": " yes\n", "sys2": "no"})])
    assert set(study.items[0].options) == {"yes", "no"}


def test_equal_replies_share_a_choice() -> None:
    row = StudyQuestion("p", {"COALA": "same", "DPO": "same ", "SFT": "other"})
    study = make_study([row])
    assert len(study.items[0].options) == 2
    sheet = Answers("p1", study.key.sheet, votes_for(study.key, "DPO"))
    result = score_study(study.key, [sheet])
    rates = {name: share.rate for name, share in result.shares["study"].items()}
    assert rates == {"COALA": 0.5, "DPO": 0.5, "SFT": 0.0}


def saved(study: Study, choices: dict[str, str], **fields: object) -> dict:
    return {
        "format": "cvxnn-study-answers",
        "version": 1,
        "sheet": study.key.sheet,
        "participant": "Ann",
        "consent": "yes",
        "answers": choices,
        **fields,
    }


def test_answers_of_the_page(study: Study, tmp_path: Path) -> None:
    choices = votes_for(study.key, "COALA")
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(saved(study, choices)))
    assert read_answers(path) == Answers("Ann", study.key.sheet, choices, str(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_answers_of_the_filled_table(study: Study, tmp_path: Path, delimiter: str) -> None:
    sheet, _ = written(study, tmp_path)
    choices = votes_for(study.key, "DPO")
    with (sheet / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["A"] for row in rows] == [item.options[0] for item in study.items]
    rows[0] |= {"participant": " Ann ", "consent": "Yes"}
    for row in rows:
        row["choice"] = choices[row["question"]].lower() + " "
    path = tmp_path / "filled.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    assert read_answers(path) == Answers("Ann", study.key.sheet, choices, str(path))


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    study = make_study([StudyQuestion("=1+1", {"sys1": "- a list", "sys2": "text"})])
    sheet, _ = written(study, tmp_path)
    with (sheet / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["prompt"] == "'=1+1"
    assert {row["A"], row["B"]} == {"'- a list", "text"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"participant": " "}, "names no participant"),
        ({"consent": "no"}, "did not consent"),
        ({"format": "other"}, "is not a filled sheet"),
        ({"answers": ["A"]}, "damaged"),
        ({"answers": {"q1": 1}}, "damaged"),
    ],
)
def test_refused_answers_of_the_page(
    study: Study, tmp_path: Path, fields: dict, message: str
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(saved(study, {"q1": "A"}, **fields)))
    with pytest.raises(ValueError, match=message):
        read_answers(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["sheet,participant,question", "s,Ann,q1"], "no column choice, consent"),
        (
            ["sheet,participant,consent,question,choice", "s,Ann,yes,q1,A", "s,,,q1,B"],
            "'q1' is repeated",
        ),
        (
            ["sheet,participant,consent,question,choice", "s,A,yes,q1,A", "s,B,yes,q2,B"],
            "more than",
        ),
        (["sheet,participant,consent,question,choice", "s,Ann,,q1,A"], "did not consent"),
    ],
)
def test_refused_tables(tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / "filled.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=message):
        read_answers(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"filled\.csv:1: .* not text in UTF-8"):
        read_answers(path)
    with pytest.raises(ValueError, match=r"expected a name in \.json or \.csv"):
        read_answers(path.rename(tmp_path / "filled.xlsx"))


def test_shares_by_hand(study: Study) -> None:
    coala, sft = votes_for(study.key, "COALA"), votes_for(study.key, "SFT")
    edu = {row.id for row in study.key.questions if row.data_set == "Edu"}
    mixed = {name: (coala if name in edu else sft)[name] for name in coala}
    people = [Answers(f"p{i}", study.key.sheet, c) for i, c in enumerate([coala, coala, mixed])]
    result = score_study(study.key, people)
    assert list(result.shares) == ["IMDb", "Edu"]
    assert result.shares["Edu"]["COALA"].rate == 1.0
    assert result.shares["IMDb"]["COALA"].rate == pytest.approx(2 / 3)
    assert result.shares["IMDb"]["SFT"].rate == pytest.approx(1 / 3)
    assert result.shares["IMDb"]["SFT"].interval == (0.0, 1.0)
    assert math.isnan(result.kappa["Edu"])
    assert result.kappa["IMDb"] == pytest.approx(fleiss_kappa([[2, 0, 0, 1]] * 3))
    assert [row.n for row in result.questions] == [3] * 6
    assert result.questions[0].shares["COALA"] == pytest.approx(2 / 3)
    assert sum(result.letters.values()) == pytest.approx(1)
    assert str(result).splitlines()[0] == "|  | COALA | DPO | ORPO | SFT | kappa |"
    assert "| Edu | 100.0% [100.0%, 100.0%] |" in str(result)


def test_sheets_of_several_seeds_are_one_study() -> None:
    studies = [make_study(questions(), seed=seed) for seed in range(3)]
    people = [
        Answers(f"p{i}", one.key.sheet, votes_for(one.key, "ORPO")) for i, one in enumerate(studies)
    ]
    result = score_study([one.key for one in studies], people)
    assert all(shares["ORPO"].rate == 1.0 for shares in result.shares.values())
    other = make_study(questions(5))
    with pytest.raises(ValueError, match="different studies"):
        score_study([studies[0].key, other.key], people)
    with pytest.raises(ValueError, match="no keys"):
        score_study([], people)


def test_all_faulty_sheets_are_named_at_once(study: Study) -> None:
    full = votes_for(study.key, "COALA")
    part = {name: letter for name, letter in full.items() if name != "q2"}
    people = [
        Answers("Ann", study.key.sheet, full, "a.json"),
        Answers(" ann", study.key.sheet, full, "b.json"),
        Answers("Bob", "0" * 16, full, "c.json"),
        Answers("Cem", study.key.sheet, part, "d.json"),
        Answers("Dee", study.key.sheet, {**full, "q1": "E"}, "e.json"),
        Answers("Eli", study.key.sheet, {**full, "q9": "A"}, "f.json"),
    ]
    with pytest.raises(ValueError, match="cannot score") as caught:
        score_study(study.key, people)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [
        "- b.json is a second sheet of ' ann' (the first: a.json)",
        f"- c.json answers another sheet ({'0' * 16}); expected {study.key.sheet}",
        "- d.json has no answer to q2 (pass allow_incomplete=True to count it)",
        "- e.json chose 'E' in q1; expected one of A, B, C, D",
        "- f.json answers 'q9', which is not on its sheet",
    ]


def test_incomplete_sheets_count_in_proportion(study: Study) -> None:
    full = votes_for(study.key, "COALA")
    edu = [row.id for row in study.key.questions if row.data_set == "Edu"]
    one = {edu[0]: votes_for(study.key, "SFT")[edu[0]]}
    people = [Answers("a", study.key.sheet, full), Answers("b", study.key.sheet, one)]
    result = score_study(study.key, people, allow_incomplete=True)
    assert result.shares["Edu"]["SFT"].rate == pytest.approx(1 / 4)
    assert result.shares["IMDb"]["COALA"].rate == 1.0
    nobody = score_study(study.key, people[1:], allow_incomplete=True)
    assert math.isnan(nobody.shares["IMDb"]["COALA"].rate)
    with pytest.raises(ValueError, match="there are no answers"):
        score_study(study.key, [Answers("a", study.key.sheet, {})], allow_incomplete=True)


@pytest.mark.slow
def test_intervals_hold_what_they_promise() -> None:
    """Intervals cover the shares of simulated people as often as their confidence promises."""
    study = make_study(questions(10))
    rng = np.random.default_rng(0)
    hits = []
    letters = {name: votes_for(study.key, name) for name in SYSTEMS}
    for trial in range(60):
        people = []
        for i in range(30):
            taste = rng.dirichlet([4, 3, 2, 1])
            choices = {
                row.id: letters[SYSTEMS[k]][row.id]
                for row, k in zip(study.key.questions, rng.choice(4, 10, p=taste), strict=True)
            }
            people.append(Answers(f"{trial}.{i}", study.key.sheet, choices))
        low, high = score_study(study.key, people).shares["Edu"]["COALA"].interval
        hits.append(low <= 0.4 <= high)
    assert np.mean(hits) > 0.85


def test_interval_is_that_of_a_naive_bootstrap() -> None:
    """People are drawn with replacement; half of them answer a single question only."""
    study = make_study(questions(8))
    coala, sft = votes_for(study.key, "COALA"), votes_for(study.key, "SFT")
    edu = [row.id for row in study.key.questions if row.data_set == "Edu"]
    people, won = [], []
    for i in range(20):
        chosen = [coala if (i + k) % 3 else sft for k in range(4)][: 4 if i % 2 else 1]
        choices = {name: letters[name] for name, letters in zip(edu, chosen, strict=False)}
        people.append(Answers(f"p{i}", study.key.sheet, choices))
        won.append((sum(letters is coala for letters in chosen), len(chosen)))
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(4000):
        drawn = [won[i] for i in rng.integers(20, size=20)]
        rates.append(sum(w for w, _ in drawn) / sum(n for _, n in drawn))
    result = score_study(study.key, people, allow_incomplete=True, n_resamples=4000)
    share = result.shares["Edu"]["COALA"]
    assert share.rate == sum(w for w, _ in won) / sum(n for _, n in won)
    assert share.interval == pytest.approx(np.quantile(rates, [0.025, 0.975]), abs=0.015)


def test_scores_are_repeatable(study: Study) -> None:
    people = [Answers(name, study.key.sheet, votes_for(study.key, name)) for name in SYSTEMS]
    assert score_study(study.key, people) == score_study(study.key, people)
    with pytest.raises(ValueError, match="confidence is 2"):
        score_study(study.key, people, confidence=2)


def test_fleiss_kappa_of_his_kind_of_table() -> None:
    """The example of ten items, fourteen raters and five categories is in many textbooks."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=6))
def test_fleiss_kappa_by_counting_pairs(ratings: list[list[int]]) -> None:
    counts = [[row.count(category) for category in range(4)] for row in ratings]
    pairs = [row[i] == row[j] for row in ratings for i in range(5) for j in range(i)]
    flat = [category for row in ratings for category in row]
    chance = sum((flat.count(category) / len(flat)) ** 2 for category in range(4))
    kappa = fleiss_kappa(counts)
    if len(set(flat)) == 1:
        assert math.isnan(kappa)
    else:
        assert kappa == pytest.approx((np.mean(pairs) - chance) / (1 - chance))


def test_fleiss_kappa_needs_two_raters() -> None:
    assert math.isnan(fleiss_kappa([[1, 0], [0, 1]]))
    assert fleiss_kappa([[1, 0], [2, 0], [0, 2]]) == 1.0
    with pytest.raises(ValueError, match="expected"):
        fleiss_kappa([1, 2])
