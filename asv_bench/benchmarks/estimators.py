"""Estimators: time, peak memory, test score and certificate."""

import contextlib
import itertools
import warnings

from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from cvxnn import ConvexReLUClassifier, ConvexReLUClassifierCV


def embeddings_like():
    """6,000 x 384 in float32, the shape of sentence embeddings of a small corpus."""
    X, y = make_classification(
        8000, 384, n_informative=60, n_redundant=100, n_clusters_per_class=4, random_state=0
    )
    return X.astype("float32"), y


DATA = {
    "breast_cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "embeddings_6000x384": embeddings_like,
}


CONFIGURATIONS = {
    "default": {},
    "gated, local patterns": {"penalty": "neuron", "patterns": "local", "strength": 1e-3},
    "relu": {"formulation": "relu"},
    "relu, adaptive": {"formulation": "relu", "patterns": "adaptive", "strength": 1e-2},
}
SLOW = {
    ("digits", "gated, local patterns"),
    ("digits", "relu, adaptive"),
    ("embeddings_6000x384", "gated, local patterns"),
    ("embeddings_6000x384", "relu, adaptive"),
}


def split(data):
    """Rows to fit and rows to score."""
    return train_test_split(*DATA[data](), test_size=0.25, random_state=0)


def classifier(data, configuration):
    """An estimator of a configuration; asv leaves out those that take minutes."""
    if (data, configuration) in SLOW:
        raise NotImplementedError("takes minutes")
    warnings.simplefilter("ignore", ConvergenceWarning)
    return ConvexReLUClassifier(random_state=0, **CONFIGURATIONS[configuration])


class Classifier:
    """Time of a fit, with nothing left to compile."""

    params = (list(DATA), list(CONFIGURATIONS))
    param_names = ("data", "configuration")
    timeout = 600
    number = 1
    repeat = 3

    def setup(self, data, configuration):
        self.X, _, self.y, _ = split(data)
        self.model = classifier(data, configuration).fit(self.X, self.y)

    def time_fit(self, data, configuration):
        self.model.fit(self.X, self.y)


class ClassifierMemory:
    """Peak memory of a first fit."""

    params = Classifier.params
    param_names = Classifier.param_names
    timeout = 600

    def setup(self, data, configuration):
        self.X, _, self.y, _ = split(data)
        self.model = classifier(data, configuration)

    def peakmem_fit(self, data, configuration):
        self.model.fit(self.X, self.y)


class FittedClassifier:
    """What was fitted: predictions, test score and certificate, of one fit for all of them."""

    params = Classifier.params
    param_names = Classifier.param_names
    timeout = 600

    def setup_cache(self):
        fitted = {}
        for data, configuration in itertools.product(*self.params):
            with contextlib.suppress(NotImplementedError):
                X, _, y, _ = split(data)
                fitted[data, configuration] = classifier(data, configuration).fit(X, y)
        return fitted

    setup_cache.timeout = 1200  # type: ignore[attr-defined]

    def setup(self, fitted, data, configuration):
        if (data, configuration) not in fitted:
            raise NotImplementedError("takes minutes")
        self.X, self.X_test, _, self.y_test = split(data)
        self.model = fitted[data, configuration]

    def time_predict(self, fitted, data, configuration):
        self.model.predict(self.X)

    def track_test_score(self, fitted, data, configuration):
        return self.model.score(self.X_test, self.y_test)

    def track_gap(self, fitted, data, configuration):
        return self.model.gap_

    def track_objective(self, fitted, data, configuration):
        return self.model.objective_


class CrossValidation:
    """Twenty strengths on five folds; ``time_single_fit`` is what they are compared with."""

    params = (list(DATA)[:2],)
    param_names = ("data",)
    timeout = 600
    number = 1
    repeat = 3

    def setup(self, data):
        self.X, self.y = DATA[data]()
        # The default compiles nothing, so that no first fit is needed.
        self.single = ConvexReLUClassifier(random_state=0)
        self.model = ConvexReLUClassifierCV(ConvexReLUClassifier(random_state=0))

    def time_fit(self, data):
        self.model.fit(self.X, self.y)

    def time_single_fit(self, data):
        self.single.fit(self.X, self.y)

    def peakmem_fit(self, data):
        self.model.fit(self.X, self.y)

    def track_best_score(self, data):
        return self.model.fit(self.X, self.y).best_score_


class Start:
    """What a user waits for before the first result: import, and the first fit in a process."""

    def timeraw_import(self):
        return "import cvxnn"

    def timeraw_import_estimator(self):
        return "from cvxnn import ConvexReLUClassifier"

    def timeraw_first_fit(self):
        return """
        from sklearn.datasets import load_breast_cancer
        from cvxnn import ConvexReLUClassifier, ConvexReLUClassifierCV
        ConvexReLUClassifier(random_state=0).fit(*load_breast_cancer(return_X_y=True))
        """
