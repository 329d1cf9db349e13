"""Parquet shards, data snapshots and their reader."""
