"""Arrays: NumPy and JAX behind one name, threads of BLAS, gates, and what scores say."""
