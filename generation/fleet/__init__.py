"""Workers: who they are and how they do."""
