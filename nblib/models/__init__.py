"""Gemma 3: by size, by folder and by name; LoRA; the mesh."""
