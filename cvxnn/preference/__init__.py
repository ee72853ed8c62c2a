"""Preference data, objectives and metrics."""
