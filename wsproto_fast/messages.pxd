# The message that is open on a connection, and what of it is ready.
cimport cython
from libc.stdint cimport int64_t

from wsproto_fast._codec cimport Accumulator, read_header, to_bytes, to_str, utf8_valid
from wsproto_fast.reader cimport FrameReader

cdef int BINARY, CHUNKS, FIN, MESSAGES, NO_MESSAGE, TEXT
cdef object _TEXT_KIND, _BINARY_KIND


cdef class MessageAssembler:
    # rules of this connection
    cdef int64_t _max_size
    cdef int64_t _max_frame
    cdef int64_t _max_fragments
    cdef int64_t _max_whole
    cdef object _deflate
    cdef bint decode_text
    cdef int wanted
    # the message that is open
    cdef int opcode
    cdef int delivery
    cdef bint _decode_text
    cdef int64_t size
    cdef bint _compressed
    cdef bint _begun
    cdef int64_t _fragments
    cdef int64_t _frame_size
    cdef bint inflated
    cdef int64_t saved
    cdef Accumulator _accumulator
    cdef object _decoder
    # receive in place
    cdef Py_ssize_t _filled
    cdef object _view
    # what is ready
    cdef object data
    cdef object kind
    cdef bint first
    cdef bint last

    cdef int deliver(self, int delivery) except -1
    @cython.locals(size=Py_ssize_t, first=int, second=int, n=int64_t, key=int64_t, start=Py_ssize_t, data=object)
    cdef bint take_whole(self, FrameReader reader) except -1
    @cython.locals(length=int64_t)
    cdef int begin_frame(self, FrameReader reader) except -1
    @cython.locals(longest=int64_t)
    cdef int64_t longest_frame(self) noexcept
    @cython.locals(room=int64_t)
    cdef int _check_room(self, int64_t length) except -1
    @cython.locals(message=int64_t, frame=int64_t)
    cdef int64_t _room(self) noexcept
    cdef object _too_big(self, object size)
    @cython.locals(n=Py_ssize_t, text=object)
    cdef bint read_payload(self, FrameReader reader) except -1
    cdef bint read_rest(self, FrameReader reader) except -1
    @cython.locals(accumulator=Accumulator, valid=bint, piece=bytes, data=bytes)
    cdef int _read_piece(self, FrameReader reader, Py_ssize_t n) except -1
    cdef bytes _inflate(self, bytes piece, bint fin)
    @cython.locals(accumulator=Accumulator, last=bint)
    cdef int _deliver(self, bint last) except -1
    cdef object _invalid_text(self)
    cdef object space(self, Py_ssize_t want)
    cdef int filled(self, Py_ssize_t nbytes) except -1
    cdef Py_ssize_t unread(self) noexcept
    cdef int _release_view(self) except -1
    cdef int clear(self) except -1


cdef int64_t _slack(int64_t size) noexcept
cdef object _checked(object data, Py_ssize_t start, Py_ssize_t n, int64_t key)
