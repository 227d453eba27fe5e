import json

import pytest

from nblib.__main__ import main
from nblib.tools.serving import Plan, check_served

QWEN_72B = {
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


def plan(gpus=4, gpu_memory=40.0, dtype="bfloat16", context=8192):
    return Plan(gpus=gpus, gpu_memory=gpu_memory, dtype=dtype, context=context)


@pytest.fixture
def folder(tmp_path):
    """A model's folder, whose weights take room in name alone."""

    def build(size_bytes, **changes):
        with (tmp_path / "model-1.safetensors").open("wb") as weights:
            weights.truncate(int(size_bytes))
        config = {name: value for name, value in (QWEN_72B | changes).items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path)

    return build


# GB of weights as of a name: the number, plus one in its last place, times the bytes of a weight.
@pytest.mark.parametrize(
    ("name", "given", "weights"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", {"gpus": 1}, "16.0"),
        ("Qwen/Qwen2.5-7B-Instruct-1M", {"gpus": 1}, "16.0"),
        ("Qwen/Qwen2.5-72B-Instruct", {"gpus": 8}, "146.0"),
        ("Qwen/Qwen2.5-72B-Instruct", {"gpu_memory": 80}, "146.0"),
        ("Qwen/Qwen2.5-72B-Instruct", {"dtype": "fp8"}, "80.3"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", {"dtype": "awq", "gpus": 2}, "40.1"),
        ("org/chat-70B-quantized.w4a16", {"dtype": "int4"}, "39.0"),
        ("Qwen/Qwen3-8B-FP8", {"dtype": "int8"}, "9.9"),
        ("org/1.5b-base", {"gpus": 1}, "3.2"),
        ("org/chat-135M", {"dtype": "float32", "gpus": 1}, "0.5"),
        ("Qwen/Qwen3-30B-A3B", {}, "62.0"),
        ("mistralai/Mixtral-8x7B-v0.1", {}, "112.0"),
        ("meta-llama/Llama-3.3-70B-Instruct", {}, "142.0"),
    ],
)
def test_what_fits_by_its_name(name, given, weights):
    said = check_served(name, plan(**given))
    assert said.startswith(f"{name} fits: ") and f"(weights {weights}, cache of 8,192" in said
    assert said.endswith("the length of its context is not known here (Qwen2.5-Math: 4,096)")


@pytest.mark.parametrize(
    ("name", "given", "would"),
    [
        # 146 + 2.8 + 6.4 GB over 4 x 40 x 2^30 x 0.985 x 0.9 = 152.3.
        (
            "Qwen2.5-72B",
            {},
            "--gpus 8; --dtype fp8; an AWQ quantisation of it with --dtype awq; GPUs of 41 GiB",
        ),
        ("Qwen2.5-72B", {"context": 1}, "--gpus 8; "),
        # Of eight GPUs no more are in one machine.
        ("405B", {"gpus": 8, "gpu_memory": 80}, "fit: --dtype fp8; an AWQ"),
        ("70B", {"gpus": 1, "gpu_memory": 24}, "fit: --gpus 8; GPUs of 154 GiB"),
        ("70B", {"gpus": 1, "dtype": "awq"}, "fit: --gpus 2; GPUs of 46 GiB"),
        # A long context alone: 16 GB of weights, and 56,569 x 2 bytes x 400,000 tokens = 45.3 GB.
        ("7B", {"gpus": 1, "context": 400_000}, "--gpus 2; GPUs of 67 GiB"),
    ],
)
def test_what_does_not_fit_is_refused_and_what_would_is_said(name, given, would):
    with pytest.raises(ValueError, match=r"does not fit: .* GB \(weights .*\nwhat would") as error:
        check_served(name, plan(**given))
    assert would in str(error.value)


@pytest.mark.parametrize(
    "name", ["org/gpt", "a/Qwen1.5-MoE-A2.7B", "gemma-3n-E4B-it", "7B-org/q4bit"]
)
def test_a_name_without_a_size_is_a_warning(name):
    assert check_served(name, plan()).startswith(f"whether {name} fits cannot be known: ")


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "bfloat16", "4 bits: give --dtype awq or int4, "),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "fp8", "4 bits: give --dtype awq or int4, "),
        ("org/chat-7b-bnb-4bit", "float16", "4 bits: give --dtype awq or int4, "),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "awq", "8 bits: give --dtype int8, "),
        ("Qwen/Qwen3-8B-FP8", "bfloat16", "8 bits: give --dtype int8, "),
        ("org/no-size-fp8", "fp8", "8 bits: give --dtype int8, "),
    ],
)
def test_a_name_that_says_other_weights_than_the_dtype_is_refused(name, dtype, expected):
    with pytest.raises(ValueError, match=f"^--dtype {dtype}: by its name, {name} has .*{expected}"):
        check_served(name, plan(gpus=1, gpu_memory=80, dtype=dtype))


@pytest.mark.parametrize(("gpus", "warned"), [(1, False), (3, True), (4, True)])
@pytest.mark.parametrize("name", ["org/chat-7B", "org/chat"])
def test_heads_that_are_not_known_are_a_warning(name, gpus, warned):
    said = check_served(name, plan(gpus=gpus))
    assert (f"heads are not known here: vLLM needs {gpus} to divide them" in said) == warned


def test_a_folder_says_its_sizes(folder):
    """80 layers x 2 x 8 heads x 128 x 2 bytes = 327,680 a token; x 8,192 tokens = 2.68 GB."""
    weights = 72.7e9 * 2
    said = check_served(folder(weights), plan(gpus=8))
    assert "weights 145.4, cache of 8,192 tokens 2.7, activations 12.9) of 304.6" in said
    assert said.endswith("such sequences: 54")  # 1 + (304.6 - 161.0) / 2.68
    with pytest.raises(ValueError, match=r"154\.5 GB"):
        check_served(folder(weights), plan())
    assert "weights 80.0" in check_served(folder(weights), plan(dtype="fp8"))
    assert "weights 72.7" in check_served(folder(weights, torch_dtype="float32"), plan())
    assert "weights 41.0" in check_served(folder(41e9, quantization_config={}), plan())
    # More GPUs than heads of keys: each has a copy of one.
    assert "tokens 5.4" in check_served(folder(weights), plan(gpus=16))
    # Of a model that sees images the text's sizes are in a part of their own.
    (text,) = [{name: value for name, value in QWEN_72B.items() if name != "torch_dtype"}]
    nested = dict.fromkeys(text) | {"text_config": text}
    assert "weights 145.4, cache of 8,192 tokens 2.7" in check_served(
        folder(weights, **nested), plan(gpus=8)
    )


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({"max_position_embeddings": 4096}, {}, "--context 8192: .* at most 4,096"),
        ({}, {"gpus": 3}, "expected one of 1, 2, 4, 8, 16, 32, 64$"),
        ({"num_attention_heads": 28, "num_key_value_heads": 4}, {"gpus": 8}, "1, 2, 4, 28$"),
        ({}, {"dtype": "awq"}, "names no quantization_config"),
        ({"hidden_size": None}, {}, "lacks 'hidden_size'"),
    ],
)
def test_what_vllm_would_refuse_of_a_folder_is_refused(folder, changes, given, said):
    with pytest.raises(ValueError, match=said):
        check_served(folder(1e9, **changes), plan(**given))


def test_yarn_makes_a_context_longer(folder):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert "fits" in check_served(folder(1e9, rope_scaling=yarn), plan(context=131_072))
    with pytest.raises(ValueError, match="at most 131,072"):
        check_served(folder(1e9, rope_scaling=yarn), plan(context=131_073))


@pytest.mark.parametrize(
    "model", ["", "/no/chat-7B", "./chat-7B", "../chat-7B", "~/chat-7B", "a/b/chat-7B", "chat-7B/"]
)
def test_what_can_be_no_name_and_is_no_folder_is_refused(model):
    with pytest.raises(ValueError, match=f"^'{model}' is no folder here and no name on the hub"):
        check_served(model, plan())


@pytest.mark.parametrize(
    ("file", "lacks"),
    [("README.md", r"weights \(\*"), ("config.json", "weights"), ("a.safetensors", "config.json")],
)
def test_a_folder_without_a_model_has_no_size_by_its_name(tmp_path, monkeypatch, file, lacks):
    (tmp_path / "chat-7B").mkdir()
    (tmp_path / "chat-7B" / file).touch()
    monkeypatch.chdir(tmp_path)
    for model in ("chat-7B", f"{tmp_path}/chat-7B"):
        with pytest.raises(ValueError, match=f"chat-7B lacks {lacks}.*: expected the folder of a"):
            check_served(model, plan())


@pytest.mark.parametrize("memory", ["nan", "inf", "-inf", "0.5"])
def test_a_memory_that_is_no_size_is_a_usage_error(capsys, memory):
    assert main(["serve", "org/chat-7B", "--gpus", "1", "--gpu-memory", memory]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "'--gpu-memory': " in err


def test_nothing_is_printed_of_a_model_that_does_not_fit(capsys):
    assert main(["serve", "Qwen2.5-72B", "--gpus", "4", "--gpu-memory", "40"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("nblib: Qwen2.5-72B in bfloat16 does not fit: ")
    assert main(["serve", "7B", "--gpus", "1", "--gpu-memory", "40", "--name", "judge"]) == 2
