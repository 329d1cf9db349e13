"""Provenance: a record beside every output, one ledger, audit commands."""
