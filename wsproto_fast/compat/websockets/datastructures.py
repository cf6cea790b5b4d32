"""HTTP headers: those of the engine."""

from __future__ import annotations

from ...http11 import Headers, HeadersLike, MultipleValuesError

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]
