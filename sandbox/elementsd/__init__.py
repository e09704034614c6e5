"""A Liquid regtest node for trials: real confidential transactions behind elementsd's JSON-RPC."""
