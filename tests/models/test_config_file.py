import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunix.models.gemma3.model import ModelConfig

from nblib.models.config_file import (
    check_stop_tokens,
    config_values,
    context_length,
    read_config,
    scaled,
)

# The text-only part of google/gemma-3-1b-it's own config.json.
GOOGLE = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "vocab_size": 262144,
}


def write(folder, **changes):
    values = {**GOOGLE, **changes}
    text = json.dumps({key: value for key, value in values.items() if value != "absent"})
    (folder / "config.json").write_text(text)
    return folder


def test_googles_own_is_tunixs_1b(tmp_path):
    read = read_config(write(tmp_path), dtype="bfloat16")
    expected = ModelConfig.gemma3_1b_it()
    for name in ModelConfig.__slots__:
        if name != "param_dtype":
            assert getattr(read, name) == getattr(expected, name), name


def rope(local=None, everywhere=None):
    return {
        "rope_theta": "absent",
        "rope_local_base_freq": "absent",
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, **(local or {})},
            "full_attention": {"rope_type": "default", "rope_theta": 1e6, **(everywhere or {})},
        },
    }


def test_dialect_of_transformers_5(tmp_path):
    kinds = [*(["sliding_attention"] * 5), "full_attention"] * 4 + ["sliding_attention"] * 2
    changes = {**rope(), "layer_types": kinds, "sliding_window_pattern": "absent"}
    read = read_config(write(tmp_path, **changes))
    assert (read.local_base_frequency, read.global_base_frequency) == (10_000, 1_000_000)
    assert read.global_scale_factor == 1.0


LINEAR = {"rope_type": "linear", "factor": 8.0}


EARLY = {"type": "linear", "factor": 8}


@pytest.mark.parametrize(
    "changes", [{"rope_scaling": LINEAR}, {"rope_scaling": EARLY}, rope(everywhere=LINEAR)]
)
def test_linear_scaling_of_the_global_layers(changes, tmp_path, tokenizer):
    read = read_config(write(tmp_path, **changes))
    assert (read.local_scale_factor, read.global_scale_factor) == (1.0, 8.0)
    (tmp_path / "config.json").write_text(json.dumps(config_values(read, tokenizer, "float32")))
    assert read_config(tmp_path).global_scale_factor == 8.0


@pytest.mark.parametrize(("factor", "context"), [(2, 65_536), (4, 131_072), (8.0, 131_072)])
def test_a_scale_is_written_in_both_dialects_with_its_context(
    factor, context, tiny_config, tokenizer, tmp_path
):
    config = scaled(tiny_config, factor)
    assert context_length(config) == context
    values = config_values(config, tokenizer, "float32")
    linear = {"rope_type": "linear", "factor": factor}
    assert values["rope_scaling"] == linear
    assert values["rope_parameters"] == {
        "full_attention": {**linear, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert values["max_position_embeddings"] == context
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path) == config


def test_without_a_scale_there_is_the_older_dialect_alone(tiny_config, tokenizer):
    values = config_values(tiny_config, tokenizer, "float32")
    assert values["rope_scaling"] is None and "rope_parameters" not in values
    assert values["max_position_embeddings"] == 32_768


def test_where_both_dialects_differ_the_older_one_is_what_all_readers_take(tmp_path):
    both = rope(everywhere={"rope_type": "linear", "factor": 2.0})
    write(tmp_path, **both, rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert read_config(tmp_path).global_scale_factor == 4.0


def test_a_factor_is_the_one_in_all_and_says_what_it_replaces(tiny_config, capsys):
    four = scaled(tiny_config, 4)
    assert (four.local_scale_factor, four.global_scale_factor) == (1.0, 4.0)
    assert scaled(four, 0) is four and scaled(four, 4) is four and capsys.readouterr().out == ""
    assert scaled(four, 2).global_scale_factor == 2.0
    said = capsys.readouterr().out
    assert said == "the RoPE factor is 2 in all, in place of the model's own 4\n"


def test_what_is_written_is_read_again(tiny_config, tokenizer, tmp_path):
    values = config_values(tiny_config, tokenizer, "float32")
    (tmp_path / "config.json").write_text(json.dumps(values))
    read = read_config(tmp_path)
    for name in ModelConfig.__slots__:
        assert getattr(read, name) == getattr(tiny_config, name), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma3"}, r"model_type is 'gemma3', expected 'gemma3_text'"),
        ({"head_dim": "absent"}, r"config\.json lacks 'head_dim'"),
        ({"rope_theta": "absent"}, r"config\.json lacks 'rope_theta': expected a whole number fr"),
        ({"hidden_size": "1152"}, r"hidden_size is '1152', expected a whole number from 1 to 1"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers is 0, expected a whole number from 1 to"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000, expected a whole num"),
        ({"sliding_window": True}, r"json: sliding_window is True, expected a whole number"),
        ({"num_key_value_heads": 3}, r"num_attention_heads 4, num_key_value_heads 3: expected"),
        ({"head_dim": 5}, r"json: head_dim is 5, expected an even number"),
        ({"rope_theta": "abc"}, r"json: rope_theta is 'abc', expected a whole number from 1"),
        ({"rope_theta": -5}, r"json: rope_theta is -5, expected a whole number from 1"),
        ({"rope_theta": 10**12}, r"json: rope_theta is 1000000000000, expected a whole number"),
        ({"rope_local_base_freq": 10000.5}, r"rope_local_base_freq is 10000\.5, expected a whole"),
        ({"rope_scaling": "linear"}, r"json: rope_scaling is 'linear', expected an object"),
        ({"rope_scaling": {**LINEAR, "factor": 0}}, r"rope_scaling\.factor is 0, expected a num"),
        ({"rope_scaling": {"type": "linear"}}, r"json lacks 'rope_scaling\.factor': expected a n"),
        (rope(everywhere={**LINEAR, "factor": True}), r"full_attention\.factor is True, expected"),
        (rope(local={"rope_theta": "1"}), r"rope_parameters\.sliding_attention\.rope_theta is '1'"),
        ({"rope_parameters": []}, r"json: rope_parameters is \[\], expected an object"),
        ({"rms_norm_eps": 0}, r"rms_norm_eps is 0, expected 1e-06"),
        ({"query_pre_attn_scalar": 0}, r"query_pre_attn_scalar is 0, expected 256"),
        ({"query_pre_attn_scalar": 168}, r"query_pre_attn_scalar is 168, expected 256"),
        ({"query_pre_attn_scalar": "absent", "head_dim": 128}, r"scalar is 256, expected 128"),
        ({"hidden_activation": "silu"}, r"hidden_activation is 'silu', expected 'gelu_pytorch"),
        ({"tie_word_embeddings": False}, r"tie_word_embeddings is False, expected True"),
        ({"final_logit_softcapping": 30.0}, r"final_logit_softcapping is 30\.0, expected None"),
        ({"use_bidirectional_attention": True}, r"bidirectional_attention is True, expected F"),
        ({"rms_norm_eps": 1e-5}, r"rms_norm_eps is 1e-05, expected 1e-06: Tunix computes no other"),
        ({"sliding_window_pattern": 4}, r"sliding_window_pattern is 4, expected 6"),
        ({"layer_types": ["full_attention"] * 26}, r"layer_types is \['full_attention', "),
        ({"rope_scaling": {"rope_type": "yarn"}}, r"rope_type is \['default', 'yarn'\]"),
        (rope(local=LINEAR), r"rope_type is \['linear', 'default'\]"),
    ],
)
def test_config_of_what_tunix_does_not_compute(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_config(write(tmp_path, **changes))


def test_no_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing: .* not a model folder"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config\.json: expected JSON"),
        (b'{"model_type": "caf\xe9"}', r"config\.json: expected JSON, 'utf-8' codec can't"),
        (b"[]", r"config\.json holds \[\], expected a JSON object"),
    ],
)
def test_config_that_is_no_json_object(content, message, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


PARTS = st.sampled_from(
    ["rope_theta", "rope_type", "type", "factor", "full_attention", "sliding_attention"]
)
TEXTS = st.sampled_from(["", "abc", "linear", "10000"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner, max_size=3),
    max_leaves=5,
)


FIELDS = st.sampled_from([*GOOGLE, "rope_parameters", "layer_types"])


@given(st.dictionaries(FIELDS, ANYTHING, max_size=3))
def test_whatever_a_field_holds_it_is_read_or_told_with_its_file(tmp_path_factory, changes):
    folder = write(tmp_path_factory.getbasetemp(), **changes)
    try:
        read = read_config(folder)
    except ValueError as error:
        assert str(error).startswith(f"{folder / 'config.json'}")
    else:  # only what does not matter has changed, or a size for another
        whole = (read.num_layers, read.num_embed, read.head_dim, read.sliding_window_size)
        whole += (read.local_base_frequency, read.global_base_frequency)
        assert all(type(number) is int and number >= 1 for number in whole)
        assert 1 <= read.global_scale_factor < math.inf


@pytest.mark.parametrize("ends", [1, [1], [1, 5], None])
def test_ends_of_text_that_are_known(ends, tmp_path, tokenizer):
    check_stop_tokens(tmp_path, tokenizer)  # a folder that does not say
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    check_stop_tokens(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"generation_config\.json holds \[\], expected a JSON object"),
        ('{"eos_token_id": true}', r"json: eos_token_id is True, expected a token's number"),
        ('{"eos_token_id": [1, "a"]}', r"json: eos_token_id is \[1, 'a'\], expected a token's"),
        ('{"eos_token_id": {"a": 1}}', r"json: eos_token_id is {'a': 1}, expected a token's"),
    ],
)
def test_ends_of_text_that_are_none(content, message, tmp_path, tokenizer):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        check_stop_tokens(tmp_path, tokenizer)


@pytest.mark.parametrize("ends", [106, [1, 106]])
def test_end_of_text_at_which_nobody_stops(ends, tmp_path, tokenizer):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(ValueError, match=r"by token 106, the tokenizer's ends are \(1, 5\)"):
        check_stop_tokens(tmp_path, tokenizer)
