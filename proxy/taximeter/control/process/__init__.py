"""The control process: delivery, upkeep, and the state they have."""
