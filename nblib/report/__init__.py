"""What a person reads of a run: tables, figures, samples, verdicts, the page and the model card.

Everything comes measured from `evaluation` and `training`; nothing is computed here, and what a
figure is called is what the task calls it. A notebook shows all of it through a `Page`, which also
collects it; `finish` writes the report and ends the notebook.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "page": "Page finish",
        "tables": "examples_table failures_table group_table paired_table rows_table stage_table "
        "versions_table",
        "curves": "plot_grpo plot_training",
        "plots": "plot_group plot_groups plot_reward_histogram plot_stages",
        "data_curve": "learning_curve_table plot_learning_curve",
        "comparison": "comparison_tables gain_table plot_failures plot_gains",
        "verdicts": "foundation_verdicts grpo_verdicts plan_warnings sft_verdicts",
        "samples": "rollout_table",
        "slots": "confusion_table gold_table grounding_table needle_table slots_table",
        "judging": "judge_tables",
        "verifying": "judged_proofs_tables verifier_tables",
        "proofs": "proof_failures_table proof_losses_table proof_rows_table proof_samples_table "
        "proof_table",
        "model_card": "foundation_manifest",
    },
)
