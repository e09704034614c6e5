"""Credit accounts as pure values: `decide` may refuse a wish, `evolve` never refuses a fact."""
