"""Clients and servers for threads: those of ``wsproto_fast.threading``, under websockets' names."""
