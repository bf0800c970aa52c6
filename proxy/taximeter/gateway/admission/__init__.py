"""Whether a call may go: its key, and its hard budgets."""
