"""Arrays: NumPy and JAX behind one name, threads, interrupts, gates, and what scores say."""
