"""HTTP routes, a file per resource. They translate; the packages behind them decide."""
