"""Estimators: time, peak memory, test score and certificate."""

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
SLOW = {("embeddings_6000x384", "relu, adaptive")}


class Classifier:
    params = (list(DATA), list(CONFIGURATIONS))
    param_names = ("data", "configuration")
    timeout = 600
    number = 1
    repeat = 3

    def setup(self, data, configuration):
        if (data, configuration) in SLOW:
            raise NotImplementedError("takes minutes")  # asv leaves the combination out
        X, y = DATA[data]()
        self.X, self.X_test, self.y, self.y_test = train_test_split(
            X, y, test_size=0.25, random_state=0
        )
        # Probabilities are not measured: no further fits for their calibration.
        self.model = ConvexReLUClassifier(random_state=0, **CONFIGURATIONS[configuration])
        warnings.simplefilter("ignore", ConvergenceWarning)
        self.model.fit(self.X, self.y)

    def time_fit(self, data, configuration):
        self.model.fit(self.X, self.y)

    def peakmem_fit(self, data, configuration):
        self.model.fit(self.X, self.y)

    def time_predict(self, data, configuration):
        self.model.predict(self.X)

    def track_test_score(self, data, configuration):
        return self.model.score(self.X_test, self.y_test)

    def track_gap(self, data, configuration):
        return self.model.gap_

    def track_objective(self, data, configuration):
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
        self.single = ConvexReLUClassifier(random_state=0)
        self.model = ConvexReLUClassifierCV(ConvexReLUClassifier(random_state=0)).fit(
            self.X, self.y
        )

    def time_fit(self, data):
        self.model.fit(self.X, self.y)

    def time_single_fit(self, data):
        self.single.fit(self.X, self.y)

    def peakmem_fit(self, data):
        self.model.fit(self.X, self.y)

    def track_best_score(self, data):
        return self.model.best_score_


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
