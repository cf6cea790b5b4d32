"""The release of websockets whose interface and behaviour this façade has; embedders compare it."""

from __future__ import annotations

__all__ = ["commit", "tag", "version"]

tag = version = commit = "17.4"
