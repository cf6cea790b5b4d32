# The sending half of a connection.
cimport cython
from libc.stdint cimport int64_t

from wsproto_fast._codec cimport utf8_valid
from wsproto_fast.writer cimport FrameWriter

cdef int BINARY, CONT, FIN, NO_MESSAGE, RSV1, TEXT


cdef class MessageSender:
    cdef FrameWriter _writer
    cdef object _deflate
    cdef Py_ssize_t _threshold
    # the fragmented message that is open
    cdef int opcode
    cdef bint _compressed
    cdef bytes _pending
    # what happened
    cdef int64_t sent
    cdef int64_t saved
    cdef bint deflated

    @cython.locals(head=int, size=Py_ssize_t)
    cdef int send(self, int opcode, object data, object compress) except -1
    @cython.locals(opcode=int, head=int, compressed=bint, payload=bytes, pending=bytes, size=Py_ssize_t)
    cdef int send_fragment(self, object data, bint first, bint fin, object text, object compress) except -1
    @cython.locals(frame=bytes)
    cdef int send_prepared(self, object prepared, object compress) except -1
    cdef bint _compresses(self, Py_ssize_t size, object compress) except -1
