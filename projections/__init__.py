"""Read models: balances and statements, folded from the log. Disposable: they can be rebuilt at any time."""
