"""Mail to people: letters, the outbox that keeps them until they are sent, and the way to a mail server."""
