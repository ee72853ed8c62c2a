"""Estimators with the scikit-learn API; import them from ``cvxnn``."""
