"""Settings: the parts of pilotage.toml, one a file; config.py puts them together and checks the whole."""
