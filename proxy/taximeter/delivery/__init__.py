"""Delivery: brings the journal's records to every sink, exactly once each (DESIGN §5)."""

from taximeter.delivery.deliver import Delivery

__all__ = ["Delivery"]
