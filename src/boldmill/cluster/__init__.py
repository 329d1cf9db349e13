"""Training as a cluster job: ranks, signals before the time limit, requeueing, and what became of failed jobs."""
