"""Gemma 3 by size, by folder and by name; LoRA; exports; the mesh. Decoding is in `decode`."""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "exports": "export_run",
        "gemma3": "parameter_count save_model",
        "lora": "LoraConfig get_lora_model get_trainable_model merge_lora trainable_count",
        "mesh": "device_mesh mesh_summary",
        "names": "RefModel get_gemma_ref_model new_ref_model",
    },
)
