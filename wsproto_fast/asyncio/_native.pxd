# What C does quicker (ext/native.pyx).

cdef class Steps:
    cdef object _value

    cdef bint step(self) except -1


cpdef unsigned long get_ident() noexcept
cpdef double monotonic() noexcept
cpdef run_in(object context, object callback, object argument)
