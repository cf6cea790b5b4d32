"""What wsproto_fast/threading/_native.py is, with C's means.

Python's sockets cost as much again as the system calls of a small message, and a method of theirs is looked up by
name each time. A descriptor is not closed while somebody is in a call here: whoever uses a Wire sees to that.
"""

import os
import threading

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
)
from cpython.ref cimport PyObject
from libc cimport errno as c_errno
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *start_of "PyBytes_AS_STRING"(PyObject *bytes)
    int resize "_PyBytes_Resize"(PyObject **bytes, Py_ssize_t size) except -1
    void drop "Py_DECREF"(PyObject *object)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    const int CLOCK_MONOTONIC

cdef extern from "<sys/socket.h>" nogil:
    """
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    """
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)
    const int MSG_DONTWAIT
    const int MSG_NOSIGNAL

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *descriptors, unsigned long count, int milliseconds)
    const short POLLIN
    const short POLLOUT

__all__ = ["RECEIVE_SIZE", "TICK", "Lock", "Wire", "get_ident", "monotonic"]

RECEIVE_SIZE = 65536
TICK = 0.1

cdef double _TICK = 0.1
cdef unsigned long _main = threading.main_thread().ident
cdef enum:
    # What a read takes on the stack, where it costs nothing; once one was full, the next takes MANY.
    FEW = 8192
    MANY = 65536
    # A copy of so many bytes into the kernel is not worth to let other threads run meanwhile.
    SMALL = 16384


cdef class Lock:
    """See _native.py."""

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock is not NULL:
            PyThread_free_lock(self._lock)

    cpdef bint acquire(self) except -1:
        cdef unsigned long me = <unsigned long>PyThread_get_thread_ident()
        if self._owner == me:
            raise RuntimeError("an observer, or a signal handler, must not use a connection in the middle of something")
        if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self._lock, WAIT_LOCK)
        self._owner = me
        return True

    cpdef int release(self) except -1:
        self._owner = 0
        PyThread_release_lock(self._lock)
        return 0

    cpdef bint _is_owned(self) noexcept:
        return self._owner == <unsigned long>PyThread_get_thread_ident()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, exc_type, exc, traceback):
        self.release()


cdef class Wire:
    """See _native.py."""

    def __init__(self, sock):
        self.sock = sock
        self._fd = sock.fileno()

    cpdef receive(self, bint wait):
        cdef char few[FEW]
        cdef ssize_t count
        if self._many:
            return self._receive_many(wait)
        count = self._recv(few, FEW, wait)
        if count < 0:
            return None
        self._many = count == FEW
        return PyBytes_FromStringAndSize(few, count)

    cdef _receive_many(self, bint wait):
        cdef PyObject *data = new_bytes(NULL, MANY)
        cdef ssize_t count
        try:
            count = self._recv(start_of(data), MANY, wait)
        except BaseException:
            drop(data)
            raise
        self._many = count >= FEW
        if count < 0:
            drop(data)
            return None
        resize(&data, count)
        result = <object>data
        drop(data)
        return result

    cpdef Py_ssize_t receive_into(self, object buffer, bint wait) except -2:
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            return self._recv(view.buf, view.len, wait)
        finally:
            PyBuffer_Release(&view)

    cdef Py_ssize_t _recv(self, void *buffer, size_t size, bint wait) except -2:
        """How many bytes, -1: none."""
        cdef ssize_t count
        cdef int error
        # A signal may have come between two of these calls, and interrupts none then. Its handler is the main thread's.
        cdef bint is_main = <unsigned long>PyThread_get_thread_ident() == _main
        while True:
            with nogil:
                while True:
                    count = c_recv(self._fd, buffer, size, 0 if wait else MSG_DONTWAIT)
                    if count >= 0:
                        break
                    error = errno
                    if error != EAGAIN:
                        break
                    if not wait or is_main or self.interrupt:
                        break
            if count >= 0:
                return count
            if error != EAGAIN and error != EINTR:
                _raise(error)
            if wait or error == EINTR:
                PyErr_CheckSignals()
            if error == EAGAIN:
                return -1

    cpdef Py_ssize_t send(self, bytes data, Py_ssize_t start) except -1:
        cdef const char *bytes_ = PyBytes_AS_STRING(data) + start
        cdef size_t size = PyBytes_GET_SIZE(data) - start
        cdef ssize_t count
        cdef int error
        while True:
            if size <= SMALL:
                count = c_send(self._fd, bytes_, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                error = errno
            else:
                with nogil:
                    count = c_send(self._fd, bytes_, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                    error = errno
            if count >= 0:
                return count
            if error == EAGAIN:
                return 0
            if error != EINTR:
                _raise(error)
            PyErr_CheckSignals()

    cpdef bint wait(self, bint write, double timeout) except -1:
        cdef pollfd descriptor
        cdef int count, error
        cdef int milliseconds
        if timeout > _TICK:
            timeout = _TICK
        milliseconds = 0 if timeout <= 0 else <int>(timeout * 1000 + 0.999)
        descriptor.fd = self._fd
        descriptor.events = POLLOUT if write else POLLIN
        with nogil:
            count = c_poll(&descriptor, 1, milliseconds)
            error = errno
        if count > 0:
            return True
        if count < 0 and error != EINTR:
            _raise(error)
        PyErr_CheckSignals()
        return False


def _after_fork():
    global _main
    _main = get_ident()


os.register_at_fork(after_in_child=_after_fork)


cdef int _raise(int error) except -1:
    c_errno.errno = error
    PyErr_SetFromErrno(OSError)
    return -1


cpdef unsigned long get_ident() noexcept:
    return <unsigned long>PyThread_get_thread_ident()


cpdef double monotonic() noexcept:
    """time.monotonic(), or a clock of the same kind."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9
