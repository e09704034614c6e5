"""Graphs as data: one JSON file per name and version, `<name>@<version>.json`.

A file declares its inputs, where each goes, the output node and the model files it needs:

    {"name": "sketch", "version": 1, "description": "...", "output": "9",
     "inputs": {"seed": {"type": "integer", "minimum": 0, "maximum": 9, "to": [["73", "noise_seed"]]}},
     "models": [["70", "unet_name"]],
     "graph": {...}}

A published version is never edited: a changed graph is a new file.
"""
