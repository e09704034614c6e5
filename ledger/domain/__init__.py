"""Credit accounts as pure values: `decide` may refuse a request, `evolve` never refuses a fact."""
