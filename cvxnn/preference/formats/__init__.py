"""Formats of preference data, one module each.

To add a format, write a module with a `Format` that recognises, parses and, if possible, writes a
row. Then add its name to ``FORMATS``, to ``ReadFormat`` and, if it writes, to ``WriteFormat`` in
`cvxnn.preference.files`.
"""
