"""What a run will do, why, and what it will cost, before anything runs; and the resources its jobs ask for."""
