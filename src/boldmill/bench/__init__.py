"""Measurements: ours and a peer, side by side, in the same run."""
