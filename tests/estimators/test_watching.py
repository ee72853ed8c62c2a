"""Who watches a fit: callbacks of scikit-learn, the progress line, and what stops it."""

import importlib.util
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)
from cvxnn.estimators import _monitor
from cvxnn.estimators._monitor import Monitor
from cvxnn.numerics.phases import tell, watched_by
from cvxnn.training.networks import EarlyStopping

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

# Interior point: a few measurements, nothing to compile.
RELU = {"patterns": "gaussian", "n_patterns": 8, "random_state": 0}
CASES = {
    "classifier": lambda: ConvexReLUClassifier(random_state=0),
    "relu classifier": lambda: ConvexReLUClassifier(formulation="relu", **RELU),
    "regressor": lambda: ConvexReLURegressor(random_state=0),
    "relu regressor": lambda: ConvexReLURegressor(formulation="relu", **RELU),
    "head": lambda: COALAPreferenceHead(random_state=0),
    "relu head": lambda: COALAPreferenceHead(formulation="relu", **RELU),
}


@pytest.fixture(params=CASES)
def model(request):
    return CASES[request.param]()


def data(n=40):
    X = np.random.default_rng(0).standard_normal((n, 3))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def values(fitted, X):
    regressor = isinstance(fitted, ConvexReLURegressor)
    return fitted.predict(X) if regressor else fitted.decision_function(X)


def monitor_of(model):
    """The monitor of a model's own score."""
    return ScoringMonitor(scoring="r2" if isinstance(model, ConvexReLURegressor) else "accuracy")


def scores_of(monitor, task):
    """Scores of all tasks of a name, in order."""
    log = monitor.get_logs().data
    return [row.get("r2", row.get("accuracy")) for row in log if row["task_name"] == task]


def n_measurements(fitted):
    second = getattr(fitted, "phase2_history_", {"time": []})
    return len(fitted.history_["time"]) + len(second["time"])


class Recorder:
    """A callback that notes what it is told, and stops or fails when asked to."""

    def __init__(self, *, stop=False, fail_in=None):
        self.stop, self.fail_in, self.told = stop, fail_in, []

    def note(self, name, context):
        self.told.append((name, context.task_name))
        if self.fail_in == (name, context.task_name):
            raise RuntimeError(f"failed in {name}")

    def setup(self, estimator, context):
        self.note("setup", context)

    def on_fit_task_begin(self, estimator, context):
        self.note("begin", context)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.note("end", context)
        return self.stop

    def teardown(self, estimator, context):
        self.note("teardown", context)


# Callbacks -------------------------------------------------------------------------------------


def test_order_of_what_callbacks_are_told(model):
    recorder = Recorder()
    X, y = data()
    model.set_callbacks(recorder).fit(X, y)
    inner = [("begin", "measurement"), ("end", "measurement")] * n_measurements(model)
    assert recorder.told == [
        ("setup", "fit"),
        ("begin", "fit"),
        *inner,
        ("end", "fit"),
        ("teardown", "fit"),
    ]


def test_callbacks_change_nothing(model):
    X, y = data()
    expected = values(model.fit(X, y), X)
    watched = model.set_callbacks(Recorder(), monitor_of(model)).fit(X, y)
    np.testing.assert_array_equal(values(watched, X), expected)


def test_progress_bar_of_scikit_learn(model, capsys):
    X, y = data()
    model.set_callbacks(ProgressBar()).fit(X, y)
    seen = capsys.readouterr().out
    assert f"{type(model).__name__} - fit" in seen
    assert "100%" in seen


@pytest.mark.parametrize("weighted", [False, True])
def test_scoring_monitor(model, weighted):
    X, y = data()
    weight = np.random.default_rng(0).uniform(0.5, 2, 40) if weighted else None
    monitor = monitor_of(model)
    model.set_callbacks(monitor).fit(X, y, sample_weight=weight)
    score = model.score(X, y, sample_weight=weight)
    rows = scores_of(monitor, "measurement")
    assert len(rows) == n_measurements(model)
    if not isinstance(model, COALAPreferenceHead):  # whose second phase keeps its best point
        assert rows[-1] == pytest.approx(score, rel=1e-12)
    # The fit itself has a row: the network that was kept.
    (whole,) = scores_of(monitor, "fit")
    assert whole == pytest.approx(score, rel=1e-12)


def test_scoring_monitor_of_pairs():
    X, _ = data()
    monitor = ScoringMonitor(scoring="accuracy")
    head = COALAPreferenceHead(**RELU).set_callbacks(monitor).fit_pairs(X[:20], X[20:])
    rows = scores_of(monitor, "measurement")
    assert len(rows) == n_measurements(head)
    assert all(0 <= score <= 1 for score in rows)


def test_scoring_monitor_sees_data_frames(model):
    X, y = data()
    monitor = monitor_of(model)
    model.set_callbacks(monitor).fit(pd.DataFrame(X, columns=list("abc")), y)
    rows = scores_of(monitor, "measurement")
    assert len(rows) == n_measurements(model)
    assert np.isfinite(rows).all()


def test_monitor_of_strengths_to_choose_from():
    X, y = data()
    monitor = ScoringMonitor(scoring="accuracy")
    model = ConvexReLUClassifier(random_state=0).set_callbacks(monitor)
    model.fit(X, y, X_val=X, y_val=y)
    rows = scores_of(monitor, "measurement")
    np.testing.assert_allclose(rows, model.validation_scores_)
    assert len(rows) == 9


def test_callbacks_reach_into_a_pipeline(capsys):
    X, y = data()
    pipeline = make_pipeline(StandardScaler(), ConvexReLUClassifier(random_state=0))
    pipeline.set_callbacks(ProgressBar()).fit(X, y)
    assert "ConvexReLUClassifier - fit" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["relu classifier", "relu regressor", "relu head"])
def test_a_callback_stops_the_fit(case):
    X, y = data()
    whole = CASES[case]().fit(X, y)
    stopped = CASES[case]().set_callbacks(Recorder(stop=True)).fit(X, y)
    assert stopped.status_ == "stopped"
    assert len(stopped.history_["time"]) == 1 < len(whole.history_["time"])
    assert np.isfinite(values(stopped, X)).all()
    if case == "relu head":  # a stop ends the phase
        assert len(stopped.phase2_history_["time"]) == 1


@pytest.mark.parametrize(
    "fail_in",
    [
        ("setup", "fit"),
        ("begin", "fit"),
        ("begin", "measurement"),
        ("end", "measurement"),
        ("end", "fit"),
    ],
    ids=" of ".join,
)
def test_a_callback_that_fails_leaves_the_estimator_as_it_was(model, fail_in):
    X, y = data()
    model.fit(X, y)
    before, attributes = values(model, X), set(vars(model))
    recorder = Recorder(fail_in=fail_in)
    model.set_callbacks(recorder)
    with pytest.raises(RuntimeError, match=f"failed in {fail_in[0]}"):
        model.fit(-X[:, :2], 1 - y)
    assert recorder.told[-1] == ("teardown", "fit")
    assert set(vars(model)) == attributes | {"_skl_callbacks"}
    np.testing.assert_array_equal(values(model, X), before)


def test_an_interruption_tears_down():
    class Interrupter(Recorder):
        def on_fit_task_end(self, estimator, context):
            raise KeyboardInterrupt

    X, y = data()
    recorder = Interrupter()
    model = ConvexReLURegressor(random_state=0).set_callbacks(recorder)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert recorder.told[-1] == ("teardown", "fit")
    assert not hasattr(model, "network_")


# The progress line -----------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch):
    """Standard error on which a line can be redrawn."""
    monkeypatch.setattr(_monitor, "_redraws", lambda: True)


@pytest.fixture(params=["rich", "plain"])
def drawn_by(request, monkeypatch, terminal):
    found = importlib.util.find_spec

    def without_rich(name, *rest):
        return None if name == "rich" else found(name, *rest)

    if request.param == "plain":
        monkeypatch.setattr(_monitor, "find_spec", without_rich)
    return request.param


def test_progress_is_one_line_of_standard_error(model, drawn_by, capsys):
    X, y = data()
    model.set_params(verbose=1).fit(X, y)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.count("\n") == 1
    last = seen.err.rstrip("\n").rsplit("\r", 1)[-1].rstrip()
    row = {name: column[-1] for name, column in model.history_.items()}
    start = f"{type(model).__name__}: iteration {row['iteration']:.0f}, objective "
    assert last.startswith(start + f"{row['objective']:.6g}")
    drawn = [line.rstrip() for line in seen.err.split("\r") if "iteration" in line]
    assert len(set(drawn)) == (len(model.history_["time"]) if drawn_by == "plain" else 1)
    model.set_params(verbose=0).fit(X, y)
    assert capsys.readouterr() == ("", "")


def test_what_the_program_gained_is_told(capsys):
    X, y = data()
    model = ConvexReLURegressor(formulation="relu", n_patterns=8, random_state=0, verbose=1)
    model.fit(X, y)
    told = capsys.readouterr().err.splitlines()[-1]
    assert model.objective_ < model.proposal_objective_ < np.inf
    gain = 1 - model.objective_ / model.proposal_objective_
    assert f"local {model.proposal_objective_:.4g}, convex program" in told
    assert told.endswith(f"{model.objective_:.4g} ({gain:.1%} lower)")
    assert len(told) < 80
    # Without a local training there is no proposal, and nothing to tell.
    model.set_params(patterns="gaussian").fit(X, y)
    assert model.proposal_objective_ == np.inf
    assert "lower)" not in capsys.readouterr().err


@pytest.mark.parametrize("columns", [20, 60, 200])
def test_progress_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with _monitor._plain("ConvexReLUClassifier") as write:
        write("objective 1", True)
        write("objective 0.123456, and more", True)
        write("objective 1", True)
    lines = capsys.readouterr().err.rstrip("\n").split("\r")[1:]
    assert [len(line) for line in lines] == [columns - 1] * 3
    assert lines[0] == lines[2]  # nothing of the longer one is left


def test_progress_counts_folds(drawn_by, capsys):
    X, y = data()
    single = ConvexReLURegressor(n_patterns=8, random_state=0)
    ConvexReLURegressorCV(single, n_strengths=2, cv=3, verbose=1).fit(X, y)
    folds, whole = capsys.readouterr().err.rstrip("\n").split("\n")
    assert folds.rstrip().endswith("ConvexReLURegressorCV: fold 3 of 3")
    shown = {line.rstrip() for line in folds.split("\r") if "fold " in line}
    assert sum("," not in line for line in shown) == (3 if drawn_by == "plain" else 1)
    assert "ConvexReLURegressor: iteration" in whole
    assert len(whole.split("\r")[-1].rstrip()) < 80
    pairs = np.add(np.random.default_rng(0).standard_normal((2, 12, 3)), [[[1]], [[0]]])
    head = COALAPreferenceHead(formulation="relu", n_patterns=8, random_state=0)
    search = COALAPreferenceHeadCV(head, strengths=[0.1], ridges=[0.1], n_folds=2, verbose=1)
    search.fit_pairs(*pairs)
    folds, *_ = capsys.readouterr().err.rstrip("\n").split("\n")
    assert folds.rstrip().endswith("COALAPreferenceHeadCV: fold 2 of 2")
    ConvexReLURegressorCV(single, n_strengths=2, cv=3).fit(X, y)
    assert capsys.readouterr() == ("", "")


def test_progress_ends_its_line_when_a_fit_fails(drawn_by, capsys):
    X, y = data()
    model = ConvexReLURegressor(formulation="relu", verbose=1, **RELU)
    model.set_callbacks(Recorder(fail_in=("end", "measurement")))
    with pytest.raises(RuntimeError, match="failed"):
        model.fit(X, y)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == "" or seen.err.endswith("\n")


FIT = ["measuring the unit of strength", "local training", "convex program"]
PHASES = {
    "classifier": (
        ConvexReLUClassifier(random_state=0),
        ["choosing patterns", "choosing strength", "iteration", "calibration"],
    ),
    "relu classifier": (
        ConvexReLUClassifier(0.1, formulation="relu", n_patterns=8, random_state=0),
        [*FIT, "iteration", "calibration"],
    ),
    "huber": (
        ConvexReLURegressor(loss="huber", n_patterns=8, random_state=0),
        ["choosing delta", "choosing strength", "convex program", "iteration"],
    ),
    "adaptive": (
        ConvexReLURegressor(
            0.1, formulation="relu", patterns="adaptive", n_patterns=8, random_state=0
        ),
        [*FIT, "iteration", "looking for patterns"],
    ),
    "head": (
        COALAPreferenceHead(random_state=0),
        ["choosing strength", "iteration", "phase II"],
    ),
    "relu head": (
        COALAPreferenceHead(strength=0.1, formulation="relu", n_patterns=8, random_state=0),
        [*FIT, "iteration", "phase II"],
    ),
}


@pytest.mark.parametrize("case", PHASES)
def test_the_line_names_the_phases_of_a_fit(case, monkeypatch, terminal, capsys):
    monkeypatch.setattr(_monitor, "find_spec", lambda name: None)
    monkeypatch.setenv("COLUMNS", "200")
    model, expected = PHASES[case]
    X, y = data(150)
    model.set_params(verbose=1).fit(X, y)
    told = capsys.readouterr().err.split("\n")[0]
    lines = [line.rstrip().removeprefix(f"{type(model).__name__}: ") for line in told.split("\r")]
    names = list(dict.fromkeys(line.split(",")[0].split(" 1")[0] for line in lines if line))
    places = [names.index(name) for name in expected]
    assert places == sorted(places)
    assert lines[-1].startswith("iteration")  # what passes does not stay
    assert all(len(line.rstrip()) < 80 for line in told.split("\r"))


def test_several_outputs_descend_and_factors_are_chosen(capsys):
    X = np.random.default_rng(0).standard_normal((200, 4))
    y = np.argmax(X[:, :3] ** 2, axis=1)
    model = ConvexReLUClassifier(formulation="relu", n_patterns=8, random_state=0, verbose=1)
    model.fit(X, y)
    assert "local training, descent" in capsys.readouterr().err
    model.set_params(formulation="gated").fit(X, y)
    assert "choosing factors of features" in capsys.readouterr().err


def test_phases_within_folds_stand_behind_the_fold(monkeypatch, terminal, capsys):
    monkeypatch.setattr(_monitor, "find_spec", lambda name: None)
    monkeypatch.setenv("COLUMNS", "200")
    X, y = data()
    single = ConvexReLUClassifier(formulation="relu", n_patterns=8, random_state=0)
    ConvexReLUClassifierCV(single, strengths=[0.5, 0.1], cv=2, verbose=1).fit(X, y)
    told = capsys.readouterr().err
    assert "ConvexReLUClassifierCV: strength 1 of 2, local training" in told
    assert "ConvexReLUClassifier: calibration" in told
    assert all(len(line.rstrip()) < 80 for line in re.split(r"[\r\n]", told))


@pytest.mark.parametrize("case", ["relu classifier", "huber"])
def test_a_file_gets_a_line_for_each_phase(case, capsys):
    model, expected = PHASES[case]
    model.set_params(verbose=1).fit(*data(150))
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"{type(model).__name__}: ") for line in lines)
    told = [line.split(": ", 1)[1] for line in lines if "lower)" not in line]
    places = [told.index(text) for text in expected if text != "iteration"]
    assert places == sorted(places)
    # The first measurement and the last: others come every 30 seconds.
    shown = [line for line in told if line.startswith("iteration")]
    n_iter = model.history_["iteration"]
    assert [line.split(",")[0] for line in shown] == [
        f"iteration {number:.0f}" for number in dict.fromkeys([n_iter[0], n_iter[-1]])
    ]
    assert all(len(line) < 80 and "\r" not in line for line in lines)


def test_results_are_printed_every_30_seconds(monkeypatch, capsys):
    now = iter([0.0, 29.0, 31.0, 40.0, 50.0])
    monkeypatch.setattr(_monitor.time, "monotonic", lambda: next(now))
    with _monitor._printed("Name") as write:
        for text, stays in (("1", True), ("2", True), ("3", True), ("phase", False), ("4", True)):
            write(text, stays)
    assert capsys.readouterr().err.split() == [
        part for text in ("1", "3", "phase", "4") for part in ("Name:", text)
    ]


def test_nobody_is_told_of_phases_who_does_not_watch(capsys):
    told = []
    with watched_by(lambda text, stays: told.append((text, stays))):
        tell("one")
        with watched_by(lambda text, stays: None):
            tell("another")
        tell("two", stays=True)
    tell("three")
    assert told == [("one", False), ("two", True)]
    assert capsys.readouterr() == ("", "")


# Parts -----------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_first_best_and_waits():
    early = EarlyStopping(float, patience=2)
    assert [early.look(score) for score in (1, 3, 3, 2, 5)] == [False, False, False, True, False]
    assert early.best == 5
    early = EarlyStopping(float, patience=1)
    assert not early.look(1.0)
    assert early.look(1.0)
    assert early.scores == [1.0, 1.0]


def test_a_monitor_tells_everybody():
    told = []

    def hook(snapshot):
        told.append(snapshot())
        return True

    monitor = Monitor(lambda row: told.append("show"), hook, lambda network: f"raw {network}")
    assert monitor({}, lambda: "network")
    assert told == ["show", "raw network"]
    assert monitor
    assert not Monitor(None, None, str)
    assert not Monitor(None, None, str)({}, lambda: None)
