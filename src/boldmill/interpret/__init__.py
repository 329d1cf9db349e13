"""What a trained model looks at: attention rollout and integrated gradients per task, their stability and drawings."""
