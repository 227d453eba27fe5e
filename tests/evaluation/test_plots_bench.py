import pytest

from nblib.evaluation.plots_bench import plot_ratios


def test_a_bar_for_each_ratio_and_nothing_else():
    found = {"sft_ratio": 2.5, "sft_tokens_per_s": 900.0, "grpo_batch_ratio": 8.0}
    (axes,) = plot_ratios(found, caption="here").axes
    assert [bar.get_width() for bar in axes.patches] == [2.5, 8.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sft", "grpo batch"]
    assert "ratio" in axes.get_xlabel()


def test_without_a_ratio_there_is_no_figure():
    with pytest.raises(ValueError, match="no figure ends in '_ratio': got sft_tokens_per_s"):
        plot_ratios({"sft_tokens_per_s": 900.0}, caption="here")
