"""From completions to a verdict: generate, score, compare, plot, report.

Nothing is imported here: a caller that only counts rates does not pay for matplotlib or jax.
"""
