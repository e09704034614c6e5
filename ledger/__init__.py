"""An event-sourced credit ledger: accounts, lots, holds, plans, and the log they live in."""
