"""The embedded demo cohort: generated BIDS data with known ground truth."""
