"""Whole proofs: right ones, changed ones, each against an evaluation at rational points."""

import pytest

from nblib.tasks.proof_check import check_proof
from tests.tasks.right_proofs import RIGHT, gap, points


@pytest.mark.parametrize("one", RIGHT, ids=lambda one: one.statement)
def test_a_right_proof_is_verified_and_all_its_lines_hold(one):
    verdict = check_proof(one.statement, one.proof)
    assert verdict.verified, verdict.reason
    assert (verdict.failure, verdict.line, verdict.claims_statement) == (None, 0, True)
    for point in points(one.statement, one.follow, 50):
        assert all(gap(step.text.partition(":")[2], point) >= 0 for step in verdict.steps)
