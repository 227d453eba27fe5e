"""From prompts to figures: ask a model, score and keep its answers, compare stages.

Before and during a training: `pass_rates` says which questions can teach, `groups` shows one group,
`answers.Probe` asks whether the answers get better. After it, `comparison` tests stages on the same
items. Nothing is drawn, and nothing is imported here: a caller that only counts rates does not pay
for jax.
"""
