from dataclasses import replace

import numpy as np
import pytest

from benchmarks import PEAK, decoding, device, peers, tpu, training, worker
from benchmarks.__main__ import plot_ratios, run_benches
from benchmarks.training import _stock_shapes, _total, _turns
from nblib.hosts.settings import SftSettings
from nblib.models.published import ModelNotFound
from nblib.tools.preflight.compiled import Compiled
from nblib.tools.preflight.programs import sft_batch
from nblib.tools.preflight.targets import PreflightError


def test_an_unknown_bench_is_named():
    with pytest.raises(ValueError, match="bench 'speed' is unknown: expected some of evaluation"):
        run_benches(["speed"])


def test_without_libtpu_the_tpu_is_left_out(monkeypatch, capsys):
    def missing(target):
        raise PreflightError("libtpu is not installed")

    monkeypatch.setattr(tpu, "compiler_of", missing)
    assert tpu.tpu() == {}
    assert "left out, libtpu is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(("limit", "fitting"), [(10, [2, 8]), (8, [2, 8]), (7, [2]), (1, [])])
def test_stock_is_what_fits(monkeypatch, mesh, limit, fitting):
    def compiled(key, lower):
        return Compiled(fits=key["shapes"][0][0] <= limit)

    monkeypatch.setattr(tpu, "compile_cached", compiled)
    found = tpu._stock((2, 8, 16), None, lambda rows: sft_batch(rows, 4, mesh), mesh)
    assert list(found) == fitting


def test_stock_is_tried_up_to_the_first_that_does_not_fit(monkeypatch, mesh):
    asked = []

    def compile_cached(key, lower):
        asked.append(key["shapes"][0][0])
        return Compiled(fits=asked[-1] < 8)

    monkeypatch.setattr(tpu, "compile_cached", compile_cached)
    found = tpu._stock((2, 4, 8, 16), None, lambda rows: sft_batch(rows, 4, mesh), mesh)
    assert list(found) == [2, 4] and asked == [2, 4, 8]


def test_on_a_cpu_the_device_is_left_out(tmp_path, capsys):
    assert device.device(tmp_path) == {}
    assert "jax sees no accelerator here" in capsys.readouterr().out


def test_without_trl_or_weights_peers_are_left_out(monkeypatch, capsys):
    def missing(name):
        raise ModelNotFound(f"{name} was not found")

    monkeypatch.setattr(peers, "find_model", missing)
    monkeypatch.setattr(peers, "find_spec", lambda name: name != "trl" or None)
    assert peers.peers() == {}
    expected = "left out, trl is not installed: pip install -e '.[parity,peers]'"
    assert expected in capsys.readouterr().out
    monkeypatch.setattr(peers, "find_spec", lambda name: name)
    assert list(peers.peers()) == ["peers_on_gsm8k"]
    assert "left out, gemma3-270m was not found" in capsys.readouterr().out


def test_without_llama_cpp_decoding_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(decoding, "find_spec", lambda name: name != "xllamacpp" or None)
    assert decoding.decoding() == {}
    assert "left out, xllamacpp is not installed" in capsys.readouterr().out


@pytest.mark.parametrize("theirs", [1.7, float("nan")])
def test_peers_that_train_on_something_else_are_not_compared(theirs):
    peers.check_losses(1.6196, 1.6197)
    with pytest.raises(RuntimeError, match=r"the first loss is 1\.6196 here and"):
        peers.check_losses(1.6196, theirs)


def test_stock_pads_all_to_the_longest_allowed(eight_examples):
    long = replace(eight_examples[0], tokens=np.full(200, 5), loss_mask=np.ones(200))
    settings = SftSettings.of({"PROFILE": "cpu", "MAX_LENGTH": 256, "BATCH_TOKENS": 2048})
    examples = [*eight_examples, long]
    assert _stock_shapes(examples, settings) == {(8, 256): 2}


def test_an_epoch_takes_each_step_as_often_as_it_comes():
    assert _total({(16, 128): 10, (8, 256): 2}, {(16, 128): 0.5, (8, 256): 2.0}) == 9.0


def test_both_ways_train_in_processes_of_their_own(monkeypatch, compilation_cache):
    for name, value in compilation_cache.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(training, "_TURNS", 1)
    found = _turns({"sft": ((2, 16),), "stock-sft": ((2, 16),)})
    for way in ("sft", "stock-sft"):
        assert found[way][2, 16] > 0
        assert found[way][()] > 2**20  # peak bytes


def test_another_tunix_is_a_second_stock(monkeypatch, tmp_path):
    ways = {"sft": ((2, 16),), "stock-sft": ((4, 16),)}
    monkeypatch.delenv("NBLIB_NEXT_TUNIX", raising=False)
    assert training._with_next(ways) == ways
    monkeypatch.setenv("NBLIB_NEXT_TUNIX", str(tmp_path))
    with pytest.raises(ValueError, match=r"has no tunix/__init__\.py: give the folder"):
        training._with_next(ways)
    (tmp_path / "tunix").mkdir()
    (tmp_path / "tunix" / "__init__.py").write_text("")
    assert training._with_next(ways) == {**ways, "next-sft": ((4, 16),)}


def test_a_process_takes_its_packages_from_the_folder_it_is_given(tmp_path):
    (tmp_path / "worked.py").write_text(
        "import sys\nfrom benchmarks import answer\n"
        "def work(number):\n    print('no answer')\n    return 2 * number, len(sys.argv)\n"
        "answer(work)\n"
    )
    with worker("worked", "way", "more", as_a_kernel=False, first=str(tmp_path)) as ask:
        assert ask(21)[PEAK + 1 :] == (42.0, 3.0)
        seconds, cpu_seconds, peak, *_ = ask(1)
        assert seconds >= 0 and cpu_seconds >= 0 and peak > 2**20


def test_a_bar_for_each_ratio_and_nothing_else():
    found = {"sft_ratio": 2.5, "sft_tokens_per_s": 900.0, "grpo_batch_ratio": 8.0}
    (axes,) = plot_ratios(found, caption="here").axes
    assert [bar.get_width() for bar in axes.patches] == [2.5, 8.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sft", "grpo batch"]
    assert "ratio" in axes.get_xlabel()


def test_without_a_ratio_there_is_no_figure():
    with pytest.raises(ValueError, match="no figure ends in '_ratio': got sft_tokens_per_s"):
        plot_ratios({"sft_tokens_per_s": 900.0}, caption="here")
