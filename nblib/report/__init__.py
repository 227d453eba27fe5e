"""What a person reads of a run: tables, figures, samples, verdicts, the page and the model card.

Everything comes measured from `evaluation` and `training`; nothing is computed here, and what a
figure is called is what the task calls it.
"""
