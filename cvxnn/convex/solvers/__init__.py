"""Solvers: frozen bundles of options, one a file; import them from ``cvxnn.convex``."""
