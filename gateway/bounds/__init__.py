"""What a client may send, keep waiting and keep open: connections, heads, bodies, streams."""
