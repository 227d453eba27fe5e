"""A model written as one GGUF file for llama.cpp, tokenizer, chat template and licence inside.

Tensors carry checksums under a key of their own: a file that was damaged later is refused by the
name of the tensor. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
from tunix.models.gemma3.model import Gemma3, ModelConfig

from nblib.files import naming
from nblib.models.config_file import EPSILON, context_length
from nblib.models.folders import gguf_name, new_folder
from nblib.models.gguf_file import (
    ARCHITECTURE,
    CHECKSUMS,
    ROOT,
    StoredTensor,
    gguf_package,
    tensor_names,
)
from nblib.models.gguf_model import CONTROL, SPACE, USER_DEFINED
from nblib.models.layout import to_hugging_face, weights_of
from nblib.models.licences import GEMMA_TERMS, licence_of
from nblib.models.processes import on_host
from nblib.tokens.chat import CHAT_TEMPLATE
from nblib.tokens.tokenizer import END_OF_TURN, START_OF_TURN


def save_gguf(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    *,
    kind: str,
    root: str,
    manifest: Mapping[str, Any],
) -> None:
    """Write a folder with the model as one GGUF file and a manifest, whole or not at all.

    `kind` is one of `GGUF_KINDS`, `root` what all its training began with: its licence is written
    into the file. Adapters must have been merged.
    Raises ImportError without the package `gguf`, and as `new_folder` does.
    """
    gguf = gguf_package()
    with new_folder(folder, tokenizer, manifest, size=model.num_embed) as partial:
        path = partial / gguf_name(kind)
        writer = gguf.GGUFWriter(path, ARCHITECTURE)
        file_type = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}[kind]
        writer.add_file_type(gguf.LlamaFileType[file_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_description(writer, root)
        _add_sizes(writer, model.config)
        _add_tokenizer(writer, tokenizer)
        tensors = stored_tensors(model, kind)
        writer.add_array(CHECKSUMS, [tensor.sha256 for tensor in tensors.values()])
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor.raw, raw_dtype=tensor.kind)
        with naming(path):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()


def stored_tensors(model: Gemma3, kind: str) -> dict[str, StoredTensor]:
    """Return a model's tensors as a file holds them, by their names in GGUF."""
    weights = ((path, on_host(variable.get_value())) for path, variable in weights_of(model))
    tensors = to_hugging_face(weights)
    names = tensor_names(model.config.num_layers)
    return {name: _stored(tensors[theirs], kind) for name, theirs in names.items()}


def _stored(tensor: np.ndarray, kind: str) -> StoredTensor:
    gguf = gguf_package()
    types = gguf.GGMLQuantizationType
    values = np.ascontiguousarray(tensor, np.float32)
    if values.ndim == 1:
        stored, values = types.F32, values + 1  # llama.cpp's norms multiply by the weight itself
    elif kind == "q8_0" and values.shape[-1] % gguf.GGML_QUANT_SIZES[types.Q8_0][0] == 0:
        stored = types.Q8_0
    else:
        stored = types.F16
    raw = gguf.quants.quantize(values, stored).view(np.uint8)
    return StoredTensor(kind=stored, shape=tensor.shape, raw=raw)


def _add_description(writer: Any, root: str) -> None:
    licence = licence_of({"base": {"root": root}})
    writer.add_type("model")
    writer.add_name(f"{Path(root).name} fine-tuned")
    if licence:
        writer.add_string(ROOT, root)
        writer.add_license(licence.name)
        writer.add_description(licence.notice.strip() or licence.sentence)
    if licence and licence.name == "gemma":
        writer.add_license_link(GEMMA_TERMS)


def _add_sizes(writer: Any, config: ModelConfig) -> None:
    writer.add_context_length(context_length(config))
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.embed_dim)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_sliding_window(config.sliding_window_size)
    writer.add_rope_freq_base(config.global_base_frequency)
    writer.add_rope_freq_base_swa(config.local_base_frequency)
    if config.global_scale_factor != 1:  # llama.cpp scales gemma3's global layers alone
        writer.add_rope_scaling_type(gguf_package().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.global_scale_factor)


def _add_tokenizer(writer: Any, tokenizer: spm.SentencePieceProcessor) -> None:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(tokenizer.serialized_model_proto())
    tokens, kinds = [], []
    for piece in model.pieces:
        user_defined = piece.type == USER_DEFINED
        tokens.append(piece.piece.replace(SPACE, " ") if user_defined else piece.piece)
        kinds.append(CONTROL if piece.piece in (START_OF_TURN, END_OF_TURN) else piece.type)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_pad_token_id(tokenizer.pad_id())
    writer.add_eot_token_id(tokenizer.piece_to_id(END_OF_TURN))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
