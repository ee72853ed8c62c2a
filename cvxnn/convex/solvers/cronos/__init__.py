"""CRONOS: the ADMM iteration, its linear system, preconditioners."""
