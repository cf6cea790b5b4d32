# The C interface of the codec; what each name does is written in _codec.py.
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t

cpdef int64_t new_key() except? -2
cpdef (Py_ssize_t, int, int, int64_t, int64_t) read_header(object data, Py_ssize_t pos, Py_ssize_t end) noexcept
cpdef int64_t rotate_key(int64_t key, Py_ssize_t offset) noexcept
cpdef bytes to_bytes(object data, Py_ssize_t pos, Py_ssize_t n, int64_t key)
cpdef object to_str(object data, Py_ssize_t pos, Py_ssize_t n, int64_t key)
cpdef bint has_views(bytearray buffer) noexcept
cpdef bint utf8_valid(object data) except -1
cpdef bytes frame_header(int first, int64_t length, int64_t key)
cpdef bytes build_frame(int first, object payload, int64_t key)


cdef class Block:
    # A bytes object under construction, and the buffer that shows it to recv_into().
    cdef PyObject *storage
    cdef Py_ssize_t exports


cdef class Accumulator:
    cdef public Py_ssize_t size
    cdef public bint text
    # storage
    cdef Block _block
    cdef Py_ssize_t _capacity
    # UTF-8 validator's state between two pieces
    cdef uint32_t _utf8

    cpdef bint write(self, object data, Py_ssize_t pos, Py_ssize_t n, int64_t key) except -1
    cpdef object space(self, Py_ssize_t want)
    cpdef bint commit(self, Py_ssize_t n, int64_t key) except -1
    cpdef bint complete(self) noexcept
    cpdef bytes take_bytes(self)
    cpdef str take_str(self)
    cpdef int begin(self, bint text) except -1
    cdef int _release(self) except -1
    cdef unsigned char *_reserve(self, Py_ssize_t room) except NULL
    cdef bint _check(self, const unsigned char *piece, Py_ssize_t n) noexcept
