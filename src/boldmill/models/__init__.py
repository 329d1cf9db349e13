"""The three models, one folder each: config, model, loss."""
