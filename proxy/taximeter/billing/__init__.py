"""From the meter to the bill: what customers are charged, statements, and their closing. See docs/billing.md."""
