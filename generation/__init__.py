"""Jobs, their queue and dispatch, the workers that serve them, and the ComfyUI they drive."""
