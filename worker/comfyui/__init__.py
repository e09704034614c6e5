"""Drives a ComfyUI server: an async client and the graphs it runs."""
