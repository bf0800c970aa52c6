"""Whether a call may go: keys, budgets, limits."""
