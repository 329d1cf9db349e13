"""Evaluation: tasks, folds, probes, baselines, metrics, statistics."""
