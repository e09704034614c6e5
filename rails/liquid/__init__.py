"""USDT and L-BTC on Liquid: a watch-only descriptor, one confidential address per payment, our own follower."""
