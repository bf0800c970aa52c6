"""Delivery: brings the journal's records to every sink, exactly once each (DESIGN §5)."""

from taximeter.delivery.deliver import Delivery
from taximeter.delivery.health import DeliveryHealth, Drained, SinkHealth

__all__ = ["Delivery", "DeliveryHealth", "Drained", "SinkHealth"]
