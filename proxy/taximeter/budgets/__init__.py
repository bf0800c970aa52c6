"""Budgets, from the rule over files and reservations to the API."""
