"""Configuration: science only, checked before anything runs. Machine matters live in ``profiles/``."""
