from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from nblib.hosts import session
from nblib.tools.preflight.checks import (
    Check,
    check_adapters,
    check_disk,
    check_examples,
    check_licence,
    check_mesh,
)
from nblib.tools.preflight.workload import Workload


def passed(checks):
    return {check.name: check.passed for check in checks}


def test_a_line_says_what_came_of_it():
    assert str(Check(name="disk", passed=False, said="full")) == "BAD  disk: full"
    assert str(Check(name="disk", passed=None, said="no idea")) == "?    disk: no idea"


def test_a_mesh_must_use_every_device_and_divide_the_batch(mesh):
    assert passed(check_mesh(mesh, 1, [4])) == {"mesh": True, "batch": True}
    assert passed(check_mesh(mesh, 8, [4])) == {"mesh": False, "batch": True}


def test_each_example_has_one_bos_and_learns_its_end(sft, eight_examples, tokenizer):
    work = Workload(settings=sft, batches=[], examples=eight_examples, tokenizer=tokenizer)
    assert passed(check_examples(work)) == {"one BOS": True, "stop token": True}
    two = replace(eight_examples[0], tokens=np.append([2], eight_examples[0].tokens))
    cut = replace(eight_examples[1], tokens=eight_examples[1].tokens[:-1])
    bad = replace(work, examples=(*eight_examples, two, cut))
    found = check_examples(bad)
    assert passed(found) == {"one BOS": False, "stop token": False}
    assert cut.id in found[1].said and "9 of 10" in found[1].said


def test_without_a_tokenizer_nothing_is_claimed(sft, eight_examples):
    work = Workload(settings=sft, batches=[], examples=eight_examples)
    assert passed(check_examples(work)) == {"one BOS": None, "stop token": None}


def test_adapters_must_be_there_and_move():
    assert passed(check_adapters(100, 0.1)) == {"trained weights": True, "they move": True}
    assert passed(check_adapters(0, 0.0)) == {"trained weights": False, "they move": False}
    assert passed(check_adapters(100, None))["they move"] is None


def test_a_disk_must_hold_what_the_notebooks_ask_for(runs, monkeypatch):
    # A million trained weights: 4 checkpoints of 12 MB, adapters of 4 MB, logs of 100 MB.
    disk = SimpleNamespace(free=152_000_001)
    monkeypatch.setattr(session.shutil, "disk_usage", lambda folder: disk)
    enough = check_disk(0, 10**6)
    assert enough.passed and str(enough).startswith("ok   disk: 0.2 GB are needed (4 checkpoints")
    disk.free = 151_000_000
    short = check_disk(0, 10**6)
    assert not short.passed and "lower LORA_RANK" in short.said
    assert not runs.exists()


def test_a_licence_needs_credentials(monkeypatch):
    for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert check_licence("embedded").passed
    assert check_licence("huggingface:gemma3-1b-it").passed is None
    monkeypatch.setenv("HF_TOKEN", "not shown")
    check = check_licence("gemma3-1b-it")
    assert check.passed and "Hugging Face" in check.said and "not shown" not in check.said
