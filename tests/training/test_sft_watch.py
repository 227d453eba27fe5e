import pytest

from nblib.training.sft_watch import evaluation_steps


@pytest.mark.parametrize(
    ("planned", "evaluations", "val_batches", "expected"),
    [
        (7, 8, 1, {0, 2, 5, 7}),  # 7 x 3 x 0.1: two are a tenth of the work
        (7, 8, 3, {0, 7}),
        (1, 8, 1, {0, 1}),
        (90, 8, 3, {0, 10, 20, 30, 40, 50, 60, 70, 80, 90}),
    ],
)
def test_validation_begins_ends_and_is_spread_between_for_a_tenth_of_the_work(
    planned, evaluations, val_batches, expected
):
    sizes = {"train_batches": planned, "val_batches": val_batches}
    assert evaluation_steps(planned, evaluations, **sizes) == expected
