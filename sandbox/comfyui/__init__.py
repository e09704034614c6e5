"""A stand-in for a ComfyUI server that paints on the CPU and speaks the recorded protocol."""
