"""What a person reads of a run: tables, figures, samples, verdicts, the page and the model card.

Everything comes measured from `evaluation` and `training`; nothing is computed here, and what a
figure is called is what the task calls it. `finish` ends a notebook.
"""

from nblib.report.comparison import (
    comparison_lead,
    comparison_tables,
    enough_line,
    gain_table,
    plot_failures,
    plot_gains,
)
from nblib.report.model_card import foundation_manifest, write_model_card
from nblib.report.page import Page, finish
from nblib.report.plots import plot_groups, plot_stages, plot_training, show
from nblib.report.plots_grpo import plot_group, plot_grpo, plot_reward_histogram
from nblib.report.samples import pick_samples, rollout_samples, samples_table
from nblib.report.tables import paired_table, settings_table, stage_table
from nblib.report.verdicts import (
    foundation_verdicts,
    grpo_lead,
    grpo_verdicts,
    sft_lead,
    sft_verdicts,
    truncation_warnings,
    verdict_table,
)
