"""From prompts to figures: ask a model, score and keep its answers, compare stages.

Before and during a training: `keep_informative` says which questions can teach, `sample_group`
shows one group, `make_probe` asks whether the answers get better. After it, `compare_stages` tests
stages on the same items. Nothing is drawn here.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "answers": "Decoding evaluate_stages make_probe stage_of_rule",
        "candidates": "Asking answer_all how_asked varied_shots",
        "data_curve": "learning_curve train_on_shares",
        "comparison": "comparable compare_stages confusion failure_counts first_items "
        "paired_by_group schema_failures",
        "forgetting": "measure_forgetting",
        "needle": "needle_grid with_long_pages",
        "package": "package_files",
        "review": "keep_review",
        "judge": "find_judge judge_stages",
        "proof_judging": "judge_proofs",
        "verifier": "Verifier calibrate_verifier check_independent",
        "sampling": "keep_informative sample_group vote_all",
    },
)
