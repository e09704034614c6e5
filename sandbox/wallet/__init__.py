"""The sandbox wallet: pays what the stand-ins ask for, with money that does not exist."""
