from dataclasses import replace

from nblib.tasks.gsm8k import GSM8K
from nblib.tools.preflight.measured import measure_steps
from nblib.tools.preflight.workload import sft_workload


def test_every_shape_is_trained_on_and_the_adapters_move(sft, tiny_folder, mesh):
    settings = replace(sft, model=str(tiny_folder), builtin_levels=(1, 4), max_length=384)
    work = sft_workload(settings, GSM8K, row_multiple=1)
    assert len(work.shapes) > 1
    measured = measure_steps(work, mesh)
    assert {(step.rows, step.length): step.times for step in measured.steps} == work.shapes
    assert all(step.seconds > 0 for step in measured.steps)
    assert measured.compile_seconds > 0 and measured.moved > 0
