"""Double-blind studies with people: a sheet that hides who wrote what, its key, and the scores.

`make_study` puts the replies of several systems under neutral letters in random order,
`write_study` writes the sheet apart from its key, and `score_study` turns filled sheets into the
share of choices that each system won (COALA, Table 2 and appendix G).
"""

from cvxnn.evaluation.human_study._answers import Answers, read_answers
from cvxnn.evaluation.human_study._key import KeyQuestion, StudyKey, read_key
from cvxnn.evaluation.human_study._scores import (
    QuestionResult,
    Share,
    StudyResult,
    fleiss_kappa,
    score_study,
)
from cvxnn.evaluation.human_study._sheet import (
    CONSENT,
    INSTRUCTIONS,
    Study,
    StudyItem,
    StudyQuestion,
    make_study,
    write_study,
)

__all__ = [
    "CONSENT",
    "INSTRUCTIONS",
    "Answers",
    "KeyQuestion",
    "QuestionResult",
    "Share",
    "Study",
    "StudyItem",
    "StudyKey",
    "StudyQuestion",
    "StudyResult",
    "fleiss_kappa",
    "make_study",
    "read_answers",
    "read_key",
    "score_study",
    "write_study",
]
