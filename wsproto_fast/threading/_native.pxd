# What C does quicker (ext/threads.pyx).
from cpython.pythread cimport PyThread_type_lock


cdef class Lock:
    cdef PyThread_type_lock _lock
    cdef unsigned long _owner

    cpdef bint acquire(self) except -1
    cpdef int release(self) except -1
    cpdef bint _is_owned(self) noexcept


cdef class Wire:
    cdef readonly object sock
    cdef public int interrupt
    cdef int _fd
    cdef bint _many
    cdef object __weakref__

    cdef Py_ssize_t _recv(self, void *buffer, size_t size, bint wait) except -2
    cdef _receive_many(self, bint wait)
    cpdef receive(self, bint wait)
    cpdef Py_ssize_t receive_into(self, object buffer, bint wait) except -2
    cpdef Py_ssize_t send(self, bytes data, Py_ssize_t start) except -1
    cpdef bint wait(self, bint write, double timeout) except -1


cpdef unsigned long get_ident() noexcept
cpdef double monotonic() noexcept
