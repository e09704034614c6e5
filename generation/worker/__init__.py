"""The worker: one program for GPU boxes and for the CPU stand-in. `python -m generation.worker`."""
