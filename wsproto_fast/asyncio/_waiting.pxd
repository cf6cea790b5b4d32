# The future that a task waits with.

cdef int PENDING, FINISHED, CANCELLED


cdef class Waiter:
    cdef object _loop
    cdef public object _asyncio_future_blocking
    cdef int _state
    # who waits; more than one seldom
    cdef object _callback
    cdef object _context
    cdef list _more
    cdef object _message

    cpdef arm(self)
    cpdef wake(self, bint direct)
    cdef _finish(self, int state)
