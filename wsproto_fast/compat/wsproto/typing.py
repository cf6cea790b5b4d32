"""The one type that wsproto's signatures name. Knows nothing else."""

from __future__ import annotations

__all__ = ["Headers"]

Headers = list[tuple[bytes, bytes]]
