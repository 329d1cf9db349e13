"""Preprocessing: nipype workflows from raw BIDS images to cleaned series in template space."""
