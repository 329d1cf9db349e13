"""Ablation of BrainMass: variants of its settings, trained and evaluated alike, in one table."""
