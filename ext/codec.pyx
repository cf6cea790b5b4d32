# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of wsproto_fast/_codec.py, which says what each name does. Here it is made fast.

Each message is touched once: unmasked straight into the storage of the str or bytes that the user gets, masked
straight into the chunk that the kernel gets.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "mask.h" nogil:
    uint32_t wsf_rotate_key(uint32_t key, size_t offset)
    int wsf_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
    int wsf_copy(uint8_t *dst, const uint8_t *src, size_t n)
    void wsf_cpu_init()
    const char *wsf_simd_level()
    int wsf_use_level(const char *name)

cdef extern from "utf8.h" nogil:
    size_t wsf_utf8_validate(uint32_t *state, const uint8_t *p, size_t n)

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    const Py_ssize_t PY_SSIZE_T_MAX
    ctypedef struct PyByteArrayObject:
        Py_ssize_t ob_exports

__all__ = [
    "COMPILED",
    "Accumulator",
    "build_frame",
    "frame_header",
    "has_views",
    "new_key",
    "read_header",
    "rotate_key",
    "simd_level",
    "to_bytes",
    "to_str",
    "utf8_valid",
]

COMPILED = True

cdef Py_ssize_t AHEAD = 65536
cdef Py_ssize_t POOL_SIZE = 4096

# Random bytes for the next keys: four from _position on. Both change together, and only with the GIL held.
cdef bytes _pool = b""
cdef Py_ssize_t _position = 0


def _empty_pool():
    global _pool
    _pool = b""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_empty_pool)

wsf_cpu_init()


def simd_level():
    return wsf_simd_level().decode()


def use_simd_level(name):
    """Force a level of kernels (tests, benchmarks). ValueError if this machine lacks it."""
    if not wsf_use_level(name.encode()):
        raise ValueError(f"no {name} kernels on this machine")


cpdef int64_t new_key() except? -2:
    global _pool, _position
    cdef bytes fresh
    cdef const uint8_t *p
    if _position + 4 > PyBytes_GET_SIZE(_pool):
        fresh = os.urandom(POOL_SIZE)  # another thread may run meanwhile
        _pool = fresh
        _position = 0
    p = <const uint8_t *>PyBytes_AS_STRING(_pool) + _position
    _position += 4
    return _get_key(p)


cdef inline int64_t _get_key(const uint8_t *p) noexcept nogil:
    return <int64_t>(<uint32_t>p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16) | (<uint32_t>p[3] << 24))


cdef inline uint32_t _memory_order(int64_t key) noexcept nogil:
    # The kernels take a key as its four bytes lie in memory, whatever the machine's byte order.
    cdef uint8_t raw[4]
    cdef uint32_t result
    _put_key(raw, key)
    memcpy(&result, raw, 4)
    return result


cdef inline void _put_key(uint8_t *target, int64_t key) noexcept nogil:
    target[0] = <uint8_t>(key & 0xFF)
    target[1] = <uint8_t>((key >> 8) & 0xFF)
    target[2] = <uint8_t>((key >> 16) & 0xFF)
    target[3] = <uint8_t>((key >> 24) & 0xFF)


cdef inline int _unmask(uint8_t *dst, const uint8_t *src, Py_ssize_t n, int64_t key) noexcept nogil:
    if key < 0:
        return wsf_copy(dst, src, n)
    return wsf_mask(dst, src, n, _memory_order(key))


cdef inline const uint8_t *_start(object data) noexcept:
    if PyBytes_CheckExact(data):
        return <const uint8_t *>PyBytes_AS_STRING(data)
    return <const uint8_t *>PyByteArray_AS_STRING(data)


cdef inline Py_ssize_t _size(object data) noexcept:
    if PyBytes_CheckExact(data):
        return PyBytes_GET_SIZE(data)
    if PyByteArray_CheckExact(data):
        return PyByteArray_GET_SIZE(data)
    return -1


cdef inline const uint8_t *_span(object data, Py_ssize_t pos, Py_ssize_t n) except NULL:
    cdef Py_ssize_t size = _size(data)
    if size < 0:
        raise TypeError("data must be bytes or bytearray")
    if pos < 0 or n < 0 or n > size - pos:
        raise ValueError("span outside the data")
    return _start(data) + pos


cpdef (Py_ssize_t, int, int, int64_t, int64_t) read_header(object data, Py_ssize_t pos, Py_ssize_t end) noexcept:
    cdef Py_ssize_t have = end - pos
    cdef Py_ssize_t size = 2
    cdef const uint8_t *p
    cdef uint64_t length
    cdef int i
    if have < 2 or pos < 0 or end > _size(data):
        return 0, 0, 0, 0, -1
    p = _start(data) + pos
    length = p[1] & 0x7F
    if length == 126:
        size = 4
        if have < 4:
            return 0, 0, 0, 0, -1
        length = (<uint64_t>p[2] << 8) | p[3]
        if length < 126:
            length = <uint64_t>-1
    elif length == 127:
        size = 10
        if have < 10:
            return 0, 0, 0, 0, -1
        length = 0
        for i in range(2, 10):
            length = (length << 8) | p[i]
        if length < 65536 or length >> 63:
            length = <uint64_t>-1
    if p[1] < 0x80:
        return size, p[0], p[1], <int64_t>length, -1
    if have < size + 4:
        return 0, 0, 0, 0, -1
    return size + 4, p[0], p[1], <int64_t>length, _get_key(p + size)


cpdef int64_t rotate_key(int64_t key, Py_ssize_t offset) noexcept:
    cdef int shift = 8 * <int>(offset & 3)
    cdef uint64_t bits = <uint64_t>key
    if key < 0 or shift == 0:
        return key
    return <int64_t>((bits >> shift) | ((bits << (32 - shift)) & 0xFFFFFFFF))


cpdef bytes to_bytes(object data, Py_ssize_t pos, Py_ssize_t n, int64_t key):
    cdef const uint8_t *source = _span(data, pos, n)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, n)
    if n:
        _unmask(<uint8_t *>PyBytes_AS_STRING(result), source, n, key)
    return result


cpdef object to_str(object data, Py_ssize_t pos, Py_ssize_t n, int64_t key):
    cdef const uint8_t *source = _span(data, pos, n)
    cdef object text
    cdef uint8_t *target
    if n == 0:
        return ""
    text = PyUnicode_New(n, 127)
    target = <uint8_t *>PyUnicode_DATA(text)
    if _unmask(target, source, n, key):
        # Not ASCII. This object dies here: its memory served to hold the unmasked bytes.
        return _decode(target, n)
    return text


cdef object _decode(const uint8_t *source, Py_ssize_t n):
    try:
        return PyUnicode_DecodeUTF8(<const char *>source, n, NULL)
    except UnicodeDecodeError:
        return None


cpdef bint has_views(bytearray buffer) noexcept:
    return (<PyByteArrayObject *>buffer).ob_exports > 0


cpdef bint utf8_valid(object data) except -1:
    cdef Py_ssize_t n = _size(data)
    cdef const uint8_t *source = _span(data, 0, n)
    cdef uint32_t state = 0
    return wsf_utf8_validate(&state, source, n) == <size_t>n and state == 0


cdef inline Py_ssize_t _header_size(uint64_t length, int64_t key) noexcept nogil:
    cdef Py_ssize_t size = 2 if length < 126 else 4 if length < 65536 else 10
    return size if key < 0 else size + 4


cdef inline void _put_header(uint8_t *p, int first, uint64_t length, int64_t key) noexcept nogil:
    cdef uint8_t mask_bit = 0 if key < 0 else 0x80
    cdef int i
    p[0] = <uint8_t>first
    if length < 126:
        p[1] = mask_bit | <uint8_t>length
        p += 2
    elif length < 65536:
        p[1] = mask_bit | 126
        p[2] = <uint8_t>(length >> 8)
        p[3] = <uint8_t>(length & 0xFF)
        p += 4
    else:
        p[1] = mask_bit | 127
        for i in range(8):
            p[2 + i] = <uint8_t>((length >> (56 - 8 * i)) & 0xFF)
        p += 10
    if key >= 0:
        _put_key(p, key)


cpdef bytes frame_header(int first, int64_t length, int64_t key):
    cdef bytes result
    if length < 0:
        raise ValueError("negative length")
    result = PyBytes_FromStringAndSize(NULL, _header_size(length, key))
    _put_header(<uint8_t *>PyBytes_AS_STRING(result), first, length, key)
    return result


cdef inline bytes _frame(int first, const uint8_t *source, Py_ssize_t n, int64_t key):
    cdef Py_ssize_t header = _header_size(n, key)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, header + n)
    cdef uint8_t *target = <uint8_t *>PyBytes_AS_STRING(result)
    _put_header(target, first, n, key)
    if n:
        _unmask(target + header, source, n, key)
    return result


cpdef bytes build_frame(int first, object payload, int64_t key):
    cdef Py_buffer view
    if isinstance(payload, str):
        if PyUnicode_IS_COMPACT_ASCII(payload):
            return _frame(first, <const uint8_t *>PyUnicode_DATA(payload), PyUnicode_GET_LENGTH(payload), key)
        payload = payload.encode()
    if PyBytes_CheckExact(payload):
        return _frame(first, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), key)
    if isinstance(payload, memoryview) and not payload.c_contiguous:
        payload = payload.tobytes()
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        return _frame(first, <const uint8_t *>view.buf, view.len, key)
    finally:
        PyBuffer_Release(&view)


cdef extern from *:
    """
    /* A bytes object of n > 0 bytes, *object resized or (when it is NULL) made; *object is its only owner. */
    static int wsf_resize(PyObject **object, Py_ssize_t n)
    {
        if (*object == NULL) {
            *object = PyBytes_FromStringAndSize(NULL, n);
            return *object == NULL ? -1 : 0;
        }
        return _PyBytes_Resize(object, n);  /* sets *object to NULL on failure */
    }
    """
    int wsf_resize(PyObject **object, Py_ssize_t n) except -1


cdef class Block:
    def __dealloc__(self):
        Py_XDECREF(self.storage)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.storage == NULL:
            raise BufferError("the memory was handed over")
        PyBuffer_FillInfo(
            buffer, self, PyBytes_AS_STRING(<object>self.storage), PyBytes_GET_SIZE(<object>self.storage), False, flags
        )
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1


cdef inline uint8_t *_memory(Block block) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(<object>block.storage)


cdef class Accumulator:
    # Invariant: without a block size and _capacity are 0; with one its storage has _capacity >= size bytes.

    cdef unsigned char *_reserve(self, Py_ssize_t room) except NULL:
        cdef Block old = self._block
        cdef Block block
        cdef Py_ssize_t need
        if room > PY_SSIZE_T_MAX - self.size:
            raise OverflowError("message too large")
        need = max(self.size + room, 1)
        if old is None:
            block = Block.__new__(Block)
            wsf_resize(&block.storage, need)
            self._block = block
            self._capacity = need
        elif need > self._capacity:
            if need < PY_SSIZE_T_MAX - self.size:
                need = max(need, self._capacity + self.size)
            block = old
            # Somebody still holds a view: leave the old memory to it. Or little is copied: memory of the right size
            # from the start comes without page faults, and realloc() does not.
            if old.exports or need >= 4 * self.size:
                block = Block.__new__(Block)
            try:
                wsf_resize(&block.storage, need)
            except MemoryError:
                self._release()
                raise
            if block is not old:
                memcpy(_memory(block), _memory(old), self.size)
                self._block = block
            self._capacity = need
        return _memory(self._block) + self.size

    cdef bint _check(self, const unsigned char *piece, Py_ssize_t n) noexcept:
        return not self.text or wsf_utf8_validate(&self._utf8, piece, n) == <size_t>n

    cpdef bint write(self, object data, Py_ssize_t pos, Py_ssize_t n, int64_t key) except -1:
        cdef const uint8_t *source = _span(data, pos, n)
        cdef unsigned char *target
        if n == 0:
            return True
        target = self._reserve(n)
        _unmask(target, source, n, key)
        self.size += n
        return self._check(target, n)

    cpdef object space(self, Py_ssize_t want):
        cdef Py_ssize_t room = min(want, max(AHEAD, self.size))
        if room <= 0:
            raise ValueError("no space wanted")
        self._reserve(room)
        return PyMemoryView_FromObject(self._block)[self.size:self.size + room]

    cpdef bint commit(self, Py_ssize_t n, int64_t key) except -1:
        cdef unsigned char *target
        if n < 0 or n > self._capacity - self.size:
            raise ValueError("span outside the data")
        if n == 0:
            return True
        target = _memory(self._block) + self.size
        if key >= 0:
            wsf_mask(target, target, n, _memory_order(key))
        self.size += n
        return self._check(target, n)

    cpdef bint complete(self) noexcept:
        return self._utf8 == 0

    cpdef bytes take_bytes(self):
        cdef Block block = self._block
        cdef Py_ssize_t size = self.size
        cdef bytes result
        if size == 0:
            result = b""
        elif block.exports:
            result = PyBytes_FromStringAndSize(<char *>_memory(block), size)
        else:
            if self._capacity != size:
                self._capacity = 0
                self.size = 0
                wsf_resize(&block.storage, size)
            result = <bytes>block.storage
            Py_XDECREF(block.storage)
            block.storage = NULL
        self._release()
        return result

    cpdef str take_str(self):
        cdef str result = ""
        if self.size:
            result = PyUnicode_DecodeUTF8(<char *>_memory(self._block), self.size, NULL)
        self._release()
        return result

    cpdef int begin(self, bint text) except -1:
        self.text = text
        self._utf8 = 0
        return self._release()

    cdef int _release(self) except -1:
        self.size = 0
        self._capacity = 0
        self._block = None
        return 0
