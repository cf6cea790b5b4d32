# What C does quicker (ext/native.pyx).

cdef class Steps:
    cdef str _name
    cdef int _state
    cdef object _value
    cdef object _connection
    cdef object _what
    cdef object _text
    cdef object _compress
    cdef object _timeout
    cdef object _rest

    cdef bint step(self) except -1


cpdef unsigned long get_ident() noexcept
cpdef double monotonic() noexcept
cpdef run_in(object context, object callback, object argument)
