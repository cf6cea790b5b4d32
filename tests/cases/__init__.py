"""Tables of behaviour that hold for every adapter: one source of cases, which each adapter's tests drive in its way.

Knows bytes, arguments, errors and outcomes; knows no sockets, no coroutines and no threads. Where an outcome is one of
several that the RFC leaves open, it is a tuple.
"""
