"""The worker: one program for GPU workers and for the CPU stand-in. `python -m worker`."""
