# What all connections of one event loop share.
from wsproto_fast.asyncio._native cimport get_ident

cdef class Scheduler:
    cdef object _loop
    cdef readonly unsigned long thread
    cdef readonly object done
    cdef readonly list _heap
    cdef object _numbers
    cdef readonly Py_ssize_t _cancelled
    cdef readonly object _handle
    cdef double _rings_at
    cdef list _waiting
    cdef object _line
    cdef bint _line_moves
    cdef object __weakref__

    cpdef list call_at(self, double when, object whom)
    cpdef cancel(self, list entry)
    cpdef at_turn_end(self, object whom)
    cpdef call_in_turn(self, object callback)
