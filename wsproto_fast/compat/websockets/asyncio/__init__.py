"""Clients and servers for asyncio: those of ``wsproto_fast.asyncio``, under websockets' names."""
