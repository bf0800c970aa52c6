"""Delivery: brings the journal's records to every sink, exactly once each (DESIGN §5)."""

from taximeter.delivery.deliver import Delivery
from taximeter.delivery.health import DeliveryHealth, Drained, Replayed, SinkHealth

__all__ = ["Delivery", "DeliveryHealth", "Drained", "Replayed", "SinkHealth"]
