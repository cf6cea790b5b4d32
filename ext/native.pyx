"""What wsproto_fast/asyncio/_native.py is, with C's means.

A coroutine that ends by an exception of type StopIteration, as it must in Python and in Cython, costs a microsecond.
Through the slots am_send and tp_iternext it returns. Those are set here by hand, before any subclass exists.
"""

from collections.abc import Coroutine

cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.exc cimport PyErr_WarnEx
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_INCREF, PyObject

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    const int CLOCK_MONOTONIC

cdef extern from "Python.h":
    void set_exception "PyErr_SetObject"(object type, object value)
    ctypedef struct PyAsyncMethods:
        void *am_send
    ctypedef struct PyTypeObject:
        PyAsyncMethods *tp_as_async
        void *tp_iternext
    void PyType_Modified(PyTypeObject *type)
    enum:
        PYGEN_RETURN
        PYGEN_NEXT

__all__ = ["Steps", "get_ident", "monotonic", "run_in"]


@cython.freelist(64)
cdef class Steps:
    """See _native.py."""

    def __dealloc__(self):  # where __del__ would cost as much as all else
        if self._state == 0 and self._name is not None:
            PyErr_WarnEx(RuntimeWarning, b"coroutine '%s' was never awaited" % self._name.encode(), 1)

    @property
    def __name__(self):
        return self._name or ""

    cdef bint step(self) except -1:
        raise NotImplementedError

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):  # in place of which there is _next
        return self.send(None)

    def send(self, value):
        cdef bint over = self.step()
        result, self._value = self._value, None
        if over:
            raise StopIteration(result)
        return result

    def throw(self, typ, val=None, tb=None):
        """What waits is to be stopped by an exception."""
        if self._rest is not None:
            return self._rest.throw(_exception_of(typ, val, tb))
        self.close()
        raise _exception_of(typ, val, tb)

    def close(self):
        """Nobody will go on."""
        raise NotImplementedError


cdef PyObject *_taken(Steps steps) noexcept:
    """A new reference to the value, which is no longer kept."""
    value = steps._value
    Py_INCREF(value)
    steps._value = None
    return <PyObject *>value


cdef int _send(Steps steps, object value, PyObject **result) except -1:
    cdef bint over = steps.step()
    result[0] = _taken(steps)
    return PYGEN_RETURN if over else PYGEN_NEXT


cdef PyObject *_next(Steps steps) except? NULL:
    if not steps.step():
        return _taken(steps)
    value = steps._value
    steps._value = None
    if value is not None:  # else NULL alone says it
        set_exception(StopIteration, value)
    return NULL


cdef object _exception_of(typ, val, tb):
    """The exception that the arguments of ``throw`` mean."""
    exc = typ
    if isinstance(typ, type):
        exc = val if isinstance(val, BaseException) else typ() if val is None else typ(val)
    return exc if tb is None else exc.with_traceback(tb)


cpdef unsigned long get_ident() noexcept:
    return <unsigned long>PyThread_get_thread_ident()


cpdef double monotonic() noexcept:
    """time.monotonic(), or a clock of the same kind."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cpdef run_in(object context, object callback, object argument):
    """See _native.py."""
    PyContext_Enter(context)
    try:
        callback(argument)
    finally:
        PyContext_Exit(context)


(<PyTypeObject *>Steps).tp_as_async.am_send = <void *>_send
(<PyTypeObject *>Steps).tp_iternext = <void *>_next
PyType_Modified(<PyTypeObject *>Steps)
Coroutine.register(Steps)
