"""Bad inputs: the table, the tree they are put into, and the test."""
