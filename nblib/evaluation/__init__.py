"""From completions to a verdict: generate, score, compare, plot, report.

Before and during a training: `pass_rates` says which questions can teach, `groups` shows one group,
`probe` asks whether the answers get better. After it, `paired` compares two stages on the same
items. Nothing is imported here: a caller that only counts rates does not pay for matplotlib or jax.
"""
