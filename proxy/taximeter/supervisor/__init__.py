"""The parent of all: starts, watches and replaces workers, control and the embedded Valkey (DESIGN §1).

It imports next to nothing and holds no other code: what cannot fail needs no watcher.
"""

from taximeter.supervisor.run import serve

__all__ = ["serve"]
