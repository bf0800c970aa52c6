"""Where records go: Redis counters, SQL history, Prometheus, the billing webhook. Built in control/process/parts.py.

A sink stores its cursor (`journal_id` -> last `seq`) in the same atomic unit as the effect, so a batch
sent twice counts once (DESIGN §5). It imports nothing from the gateway or the control plane.
"""
