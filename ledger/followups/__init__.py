"""Follow-ups: what one event causes elsewhere, as rows that are worked off until done."""
