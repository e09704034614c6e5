"""A stand-in for a ComfyUI server that makes pictures on the CPU and speaks the recorded protocol."""
