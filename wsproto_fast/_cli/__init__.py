"""The program ``wsproto-fast``: a client for terminals and pipes, two servers to try things with, a load generator.

One module for each command. They use the asyncio adapter's public names; nothing in the package imports them.
"""

from .program import main

__all__ = ["main"]
