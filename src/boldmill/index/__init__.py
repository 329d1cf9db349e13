"""Ingest: index BIDS data sets, check and hash them, write one ticket per scan."""
