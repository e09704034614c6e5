"""What a letter says, and the message that carries it. Pure."""
