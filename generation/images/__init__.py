"""Pictures: checked, moderated, and kept."""
