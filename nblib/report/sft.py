"""Whether the format was learnt without costing the arithmetic, in verdicts and in a sentence."""

from collections.abc import Mapping
from typing import Any

from nblib.report.verdicts import Verdict, at_least, at_most
from nblib.training.session import Trained

_MORE = "train on more samples or epochs; look at the samples for what breaks the form"
_TRUNCATION_LIMIT = 0.02  # above it the figures speak of the limit, not of the model


def sft_verdicts(stages: Mapping[str, Mapping[str, Any]], *, target: float) -> tuple[Verdict, ...]:
    """Judge the tuned stage against the format's target and the base's arithmetic.

    `stages` are those of result.json: base, base_own_form, tuned; () when nothing was measured.
    """
    if "tuned" not in stages:
        return ()
    tuned = stages["tuned"]
    lost = stages["base_own_form"]["answer_accuracy"] - tuned["answer_accuracy"]
    return (
        at_least("strict format, tuned", tuned["format_accuracy"], target, _MORE),
        at_least("tag order, tuned", tuned["tag_order_accuracy"], target, _MORE),
        at_least("answers that can be read, tuned", tuned["answer_extractable"], target, _MORE),
        at_most(
            "accuracy lost against the base in its own form",
            lost,
            0.05,
            "lower LEARNING_RATE, or train on more samples of the levels that got worse",
        ),
    )


def truncation_warnings(
    stages: Mapping[str, Mapping[str, Any]], *, judged: str = "tuned"
) -> tuple[str, ...]:
    """Name the stages, of those that begin with `judged`, that were cut too often to be judged."""
    return tuple(
        f"{name}: {metrics['truncation_rate']:.1%} of the completions were cut at MAX_NEW_TOKENS. "
        "Raise it, or look at the samples for endless text."
        for name, metrics in stages.items()
        if name.startswith(judged) and (metrics["truncation_rate"] or 0) > _TRUNCATION_LIMIT
    )


def sft_lead(stages: Mapping[str, Mapping[str, Any]], trained: Trained) -> str:
    """Return the report's first paragraph."""
    done = f"LoRA adapters were trained for {trained}"
    if "tuned" not in stages:
        return f"{done}; nothing was evaluated (EVAL_AT_END is off)."
    base, tuned = stages["base"], stages["tuned"]
    return (
        f"{done}. Strict format went from {base['format_accuracy']:.1%} to "
        f"{tuned['format_accuracy']:.1%} on {tuned['n']} held-out questions; answers are right in "
        f"{tuned['answer_accuracy']:.1%} of them, against "
        f"{stages['base_own_form']['answer_accuracy']:.1%} for the base in its own form."
    )
