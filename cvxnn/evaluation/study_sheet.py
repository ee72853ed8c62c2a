"""Double-blind studies with people: the sheet, which hides the systems behind letters.

`make_study` puts the replies of several systems under letters in random order, `write_study` writes
the sheet and, apart from it, the key, and `score_study` turns filled sheets into the share of
choices that each system won (COALA, Table 2 and appendix G).
"""

from __future__ import annotations

import csv
import html
import io
import os
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from cvxnn.evaluation.study_key import KeyQuestion, StudyKey, read_key
from cvxnn.files.digests import digest
from cvxnn.files.json_files import write_json
from cvxnn.files.writing import write_text
from cvxnn.preference.row_checks import check_text
from cvxnn.preference.triplets import Prompt, as_text

INSTRUCTIONS = """\
You will see questions, each with several answers under the letters A, B, C and so on. Computer \
programs wrote the answers. Every question has a random order of its own, so the letters carry no \
meaning.

Read all the answers to a question, then choose the one that its task asks for. If two seem \
equally good, choose the one that you would rather receive. Please do not talk with others about \
it, and do not look anything up, until you have sent your answers.

At the end, save your answers with a button at the bottom, and send the file back."""

CONSENT = """\
You are invited to help in comparing programs that write answers. No special knowledge is needed. \
Some answers may be wrong or unpleasant to read; you need not finish.

Taking part is voluntary. You may stop at any time before you send your answers, without giving a \
reason. We keep your choices and the name or code that you enter, in order to count each person \
once. Results are published as totals; single choices are published without names only. Whoever \
gave you this sheet can delete your answers if you ask before the results are published."""

_LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class StudyQuestion:
    """Question with the replies of all systems.

    Parameters
    ----------
    prompt : str or list of Message
        The text or the messages that the replies answer.
    outputs : mapping of str to str
        Reply of each system, shown without leading and trailing white space. Equal replies are
        shown once, and the choice of such a reply is divided among its systems.
    data_set : str, default="study"
        Data set of the question, by which shares are reported. It is not shown.
    task : str, default="Which answer is the most helpful?"
        Criterion of the choice, as participants read it.
    """

    prompt: Prompt
    outputs: Mapping[str, str]
    data_set: str = "study"
    task: str = "Which answer is the most helpful?"


@dataclass(frozen=True)
class StudyItem:
    """Question as the sheet shows it.

    Attributes
    ----------
    id : str
        Name of the question on the sheet, such as ``"q1"``.
    prompt : str
        Prompt as one text.
    task : str
        Criterion of the choice.
    options : tuple of str
        Replies in the order of their letters, without names.
    """

    id: str
    prompt: str
    task: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """Sheet of a study, and its key.

    Attributes
    ----------
    title, instructions, consent : str
        Texts at the head of the sheet.
    items : tuple of StudyItem
        Questions as participants see them.
    key : StudyKey
        Systems behind the letters, which participants must not see.
    """

    title: str
    instructions: str
    consent: str
    items: tuple[StudyItem, ...]
    key: StudyKey


def make_study(
    questions: Sequence[StudyQuestion],
    *,
    title: str = "Which answer is better?",
    instructions: str = INSTRUCTIONS,
    consent: str = CONSENT,
    seed: int = 0,
) -> Study:
    """Put questions and replies in random order under numbers and letters.

    Parameters
    ----------
    questions : sequence of StudyQuestion
        Questions, each with replies of the same systems.
    title, instructions, consent : str
        Texts at the head of the sheet, with blank lines between paragraphs. Adapt the consent to
        the rules of your institution and to your use of the answers.
    seed : int, default=0
        Seed of the order; the same seed gives the same sheet. To balance the effect of the order,
        give several groups of participants sheets with different seeds; `score_study` takes all
        their keys. Keep the seed from the participants.

    Returns
    -------
    Study
        The sheet and its key.

    Raises
    ------
    ValueError
        If there are no questions, their systems differ, a question has fewer than 2 or more than 26
        different replies, a text is empty, a question is repeated, or the name of a system occurs
        in a text that is shown.

    Examples
    --------
    >>> question = StudyQuestion("What is 2 + 2?", {"tuned": "4", "base": "Five, I think."})
    >>> study = make_study([question])
    >>> sorted(study.items[0].options)
    ['4', 'Five, I think.']
    """
    if not questions:
        raise ValueError("there are no questions; expected at least one")
    systems = tuple(questions[0].outputs)
    hashes = [_check_question(i, question, systems) for i, question in enumerate(questions)]
    for i, name in enumerate(hashes):
        if (first := hashes.index(name)) != i:
            raise ValueError(f"questions {first} and {i} are equal; expected each question once")
    for name, text in (("title", title), ("instructions", instructions), ("consent", consent)):
        _check_text(text, "the sheet", name, systems)
    rng = np.random.default_rng(seed)
    items, keys = [], {}
    for number, i in enumerate(rng.permutation(len(questions)).tolist(), start=1):
        question = questions[i]
        writers: dict[str, list[str]] = {}
        for system in sorted(systems):
            writers.setdefault(question.outputs[system].strip(), []).append(system)
        texts = list(writers)
        shown = [texts[k] for k in rng.permutation(len(texts))]
        options = {letter: tuple(writers[t]) for letter, t in zip(_LETTERS, shown, strict=False)}
        name, prompt = f"q{number}", as_text(question.prompt)
        items.append(StudyItem(name, prompt, question.task, tuple(shown)))
        keys[i] = KeyQuestion(name, hashes[i], prompt[:80], question.data_set, options)
    sheet = digest([title, instructions, consent, [list(vars(item).values()) for item in items]])
    key = StudyKey(sheet, systems, tuple(keys[i] for i in sorted(keys)))
    return Study(title, instructions, consent, tuple(items), key)


def write_study(study: Study, folder: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
    """Write ``sheet.html``, ``sheet.csv`` and ``instructions.txt`` to a folder, the key elsewhere.

    The page needs no network: it can be mailed, printed or filled in offline, and saves the answers
    to a file. The table is for participants who prefer a spreadsheet.

    Parameters
    ----------
    study : Study
        The study to write.
    folder : path-like
        Folder for the participants, which is created if it does not exist.
    key : path-like
        JSON file for the key, outside `folder`.

    Raises
    ------
    ValueError
        If the key would be in the folder.
    FileExistsError
        If the file holds the key of another sheet, whose answers cannot be scored without it.
    """
    folder, key = Path(folder), Path(key)
    if key.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"the key {key} would be in {folder}, with the sheet; choose another folder"
        )
    if key.exists() and read_key(key) != study.key:
        raise FileExistsError(
            f"{key} is the key of another sheet, whose answers need it; choose another name"
        )
    paragraphs = [study.title, study.instructions, study.consent, _SPREADSHEET]
    files = {
        "sheet.html": _page(study),
        "sheet.csv": _table(study),
        "instructions.txt": "\n\n".join(paragraphs) + "\n",
    }
    write_json(key, study.key.as_dict())  # written first, so that every sheet has its key
    for name, text in files.items():
        write_text(folder / name, text)


_SPREADSHEET = """\
If you use the table sheet.csv: in its first row, write your name or code under "participant", and \
"yes" under "consent" if you agree to the above. In each row, write the letter of your choice \
under "choice", and change nothing else. Save it as CSV and send it back."""


def _page(study: Study) -> str:
    questions = []
    for number, item in enumerate(study.items, start=1):
        options = [
            f'<label class="option"><input type="radio" name="{item.id}" value="{letter}">'
            f'<span class="letter">{letter}</span>'
            f'<span class="reply">{_escape(text)}</span></label>'
            for letter, text in zip(_LETTERS, item.options, strict=False)
        ]
        questions.append(
            f'<fieldset data-question="{item.id}">\n'
            f"<legend>Question {number} of {len(study.items)}</legend>\n"
            f'<div class="prompt">{_escape(item.prompt)}</div>\n'
            f'<p class="task">{_escape(item.task)}</p>\n' + "\n".join(options) + "\n</fieldset>"
        )
    values = {
        "title": _escape(study.title),
        "sheet": study.key.sheet,
        "instructions": _paragraphs(study.instructions),
        "consent": _paragraphs(study.consent),
        "questions": "\n".join(questions),
    }
    template = (
        resources.files("cvxnn.evaluation").joinpath("study_sheet.html").read_text(encoding="utf-8")
    )
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _table(study: Study) -> str:
    letters = _LETTERS[: max(len(item.options) for item in study.items)]
    buffer = io.StringIO()
    # All cells are quoted: before Python 3.13 a lone carriage return would not be quoted, and would
    # end the row.
    table = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    heads = ["sheet", "participant", "consent", "question", "task", "prompt", *letters, "choice"]
    table.writerow(heads)
    for item in study.items:
        replies = [*item.options, *[""] * (len(letters) - len(item.options))]
        texts = [_cell(text) for text in (item.task, item.prompt, *replies)]
        table.writerow([study.key.sheet, "", "", item.id, *texts, ""])
    return "\ufeff" + buffer.getvalue()  # with this mark, spreadsheets read the table as UTF-8


def _cell(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _escape(text: str) -> str:
    visible = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", text.replace("\r\n", "\n"))
    return html.escape(visible)


def _paragraphs(text: str) -> str:
    return "\n".join(f"<p>{_escape(part.strip())}</p>" for part in re.split(r"\n\s*\n", text))


def _check_question(number: int, question: StudyQuestion, systems: Sequence[str]) -> str:
    """Return the hash of a question, or raise ValueError if the sheet cannot show it."""
    where = f"question {number}"
    if set(question.outputs) != set(systems) or not all(systems):
        raise ValueError(
            f"{where} has outputs of {sorted(question.outputs)}, the first question of "
            f"{sorted(systems)}; expected the same systems, each with a name"
        )
    if not question.data_set:
        raise ValueError(f"{where} has an empty data_set; expected a name")
    replies = sorted(reply.strip() for reply in question.outputs.values())
    n_replies = len(set(replies))
    if not 2 <= n_replies <= len(_LETTERS):
        raise ValueError(
            f"{where} has {n_replies} different replies; expected 2 to {len(_LETTERS)} (leave out "
            "questions on which all systems agree)"
        )
    prompt = as_text(question.prompt)
    _check_text(prompt, where, "prompt", systems)
    _check_text(question.task, where, "task", systems)
    for system, reply in question.outputs.items():
        _check_text(reply, where, f"reply of {system}", systems)
    return digest([question.data_set, prompt, replies])


def _check_text(text: str, where: str, field: str, systems: Sequence[str]) -> None:
    check_text(text, where, field)
    for system in systems:
        if re.search(rf"(?<!\w){re.escape(system)}(?!\w)", text, re.IGNORECASE):
            raise ValueError(
                f"{where}: {field!r} contains {system!r}, the name of a system, so the sheet would "
                "not be blind; change the text, leave the question out, or give the system another "
                "name (only the key shows it)"
            )
