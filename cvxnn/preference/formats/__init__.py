"""Formats of preference data, one module each.

To add a format, write a module with a `Format` that recognises, parses and, if possible, writes a
row, and add it to ``FORMATS`` in `cvxnn.preference.files`.
"""
