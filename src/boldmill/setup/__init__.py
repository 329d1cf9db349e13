"""Setting up: init, doctor, clean."""
