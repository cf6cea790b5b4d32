# The input window of a connection and the frame at its front.
cimport cython
from libc.stdint cimport int64_t

from wsproto_fast._codec cimport has_views, read_header, rotate_key, to_bytes

cdef int CONTROL, FIN, PING, PONG, RSV1
cdef int RECEIVE_SIZE
cdef int _VALID_OPCODES
cdef list _spare
cdef int _MAX_SPARE


cdef class FrameReader:
    # input window: data[pos:end]
    cdef object data
    cdef Py_ssize_t pos
    cdef Py_ssize_t end
    # whose memory it is
    cdef bint _mine
    cdef bint _shared
    cdef object _receive_buffer
    cdef object _view
    # rules of this connection
    cdef int mask_bit
    cdef int reserved_bits
    # the current frame
    cdef bint in_frame
    cdef int opcode
    cdef bint fin
    cdef bint rsv1
    cdef int64_t remaining
    cdef int64_t key
    # look ahead
    cdef Py_ssize_t ahead
    cdef bint _open_ahead
    cdef int opcode_ahead
    cdef bint seen_ahead

    cdef Py_ssize_t feed(self, object data) except -1
    cdef object get_buffer(self)
    cdef int buffer_updated(self, Py_ssize_t nbytes) except -1
    cdef int _release_view(self) except -1
    cdef int _append(self, bytes data) except -1
    cdef int _forget_consumed(self) except -1
    cdef int settle(self) except -1
    cdef int clear(self) except -1
    cdef int _drop(self) except -1
    cdef int _drop_shared(self) except -1
    @cython.locals(size=Py_ssize_t, first=int, second=int, length=int64_t, key=int64_t, opcode=int)
    cdef bint read_header(self) except -1
    @cython.locals(first=int, second=int)
    cdef int _check_beginning(self) except -1
    @cython.locals(opcode=int)
    cdef bint _is_legal(self, int first, int second, int64_t length) noexcept
    cdef object _illegal(self, Py_ssize_t size, int first, int second, int64_t length)
    @cython.locals(have=Py_ssize_t)
    cdef Py_ssize_t available(self) noexcept
    cdef bint wants_in_place(self) noexcept
    cdef bint data_is_next(self) except -1
    cdef int consume(self, Py_ssize_t n) except -1
    cdef int skip(self, Py_ssize_t n) except -1
    @cython.locals(n=Py_ssize_t, payload=bytes)
    cdef bytes take_control(self)
    @cython.locals(size=Py_ssize_t, first=int, second=int, length=int64_t, key=int64_t, start=Py_ssize_t, opcode=int)
    cdef bytes control_ahead(self, Py_ssize_t received, bint message_open, int64_t max_length)


@cython.locals(buffer=bytearray)
cdef bytearray _take_spare()
cdef int _give_back(object buffer) except -1
