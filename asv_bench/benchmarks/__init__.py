"""Benchmarks of cvxnn, measured by asv: `make bench`, or `asv run` inside asv_bench/.

One file a subject. A grid measures time (``time_*``), memory (``peakmem_*``) and quality or
iterations (``track_*``) on the same parameters, with data made in ``setup`` from a fixed seed.
Anything that asserts belongs in tests/ instead.
"""
