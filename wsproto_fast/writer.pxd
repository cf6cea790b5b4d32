# The output of a connection.
cimport cython
from libc.stdint cimport int64_t

from wsproto_fast._codec cimport build_frame, frame_header, new_key

cdef int CLOSE, FIN, PONG
cdef int BY_REFERENCE, MAX_PONGS


cdef class FrameWriter:
    cdef bint _masked
    cdef bytes _first
    cdef list _more
    cdef bint _large
    # pongs among the chunks, and the one that waits outside
    cdef int _pongs
    cdef bytes _pong
    cdef Py_ssize_t size
    cdef int64_t taken

    @cython.locals(frame=bytes)
    cdef int write(self, int first, object payload) except -1
    cdef int append(self, bytes frame) except -1
    cdef int write_pong(self, bytes payload) except -1
    cdef int write_close(self, bytes payload) except -1
    @cython.locals(payload=bytes)
    cdef int _flush_pong(self) except -1
    @cython.locals(first=bytes, chunks=list, large=bint)
    cdef list take(self)


@cython.locals(joined=list, small=list, chunk=bytes)
cdef list _join_small(list chunks)
