"""The handlers of the usage API."""
