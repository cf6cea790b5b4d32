# Coroutine objects that are made of steps (ext/steps.pyx).

cdef class Steps:
    cdef object _value

    cdef bint step(self) except -1
