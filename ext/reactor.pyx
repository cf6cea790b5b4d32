# cython: language_level=3, boundscheck=False, wraparound=False
"""The sockets of one event loop in an epoll of their own, of which the loop sees one descriptor (Linux only).

``Reactor`` is that epoll, ``Channel`` a connected socket in it with asyncio's transport interface, ``Listener`` one
that accepts. Knows sockets, flow control and the ends of connections, and calls protocols as asyncio does; knows no
WebSocket, no HTTP and no TLS.

Everything here belongs to the thread of its loop. The GIL is kept during system calls: none of them blocks.
"""

import asyncio
import contextvars
import logging
import os
import socket
import warnings
import weakref
from asyncio.trsock import TransportSocket

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Copy, PyContext_Enter, PyContext_Exit
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.ref cimport Py_DECREF, Py_XDECREF, PyObject
from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO, errno
)
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from wsproto_fast.asyncio._link cimport Link

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *storage "PyBytes_AS_STRING"(PyObject *data)
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int size, int timeout)
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    const uint32_t EPOLLIN, EPOLLOUT

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        uint16_t ss_family
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int getpeername(int fd, sockaddr *address, socklen_t *size)
    int getsockname(int fd, sockaddr *address, socklen_t *size)
    int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
    int shutdown(int fd, int how)
    ssize_t recv(int fd, void *target, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    const int AF_INET, AF_INET6, AF_UNIX, MSG_NOSIGNAL, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t ntohs(uint16_t value)
    uint32_t ntohl(uint32_t value)
    const int IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    const int TCP_NODELAY

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *target, socklen_t size)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        char *sun_path

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    const int CLOCK_MONOTONIC

cdef extern from "<unistd.h>" nogil:
    int close_fd "close"(int fd)

__all__ = ["Channel", "Listener", "Placeholder", "Reactor", "adopt", "reactor_of"]

logger = logging.getLogger("asyncio")  # what asyncio's transports log, these do

# How many sockets the kernel names at once; how long they keep the loop from its other callbacks, nanoseconds.
cdef enum:
    BATCH = 64
    TURN = 1_000_000
# One read; from this size on it is handed over rather than copied (one memcpy of 4 KiB costs what a realloc does).
cdef enum:
    READ_SIZE = 131072
    COPIED = 4096
# One sendmsg: the kernel's limit of chunks, and bytes beyond which no more of them are gathered.
cdef enum:
    MAX_CHUNKS = 1024
    MAX_GATHERED = 1 << 20
# Connections accepted at once; seconds until accepting is tried again when descriptors or memory are used up.
cdef enum:
    ACCEPTED = 64
ACCEPT_RETRY_DELAY = 1.0
# Seconds without a sign of reading after which a connection whose output failed ends, what it received notwithstanding.
PATIENCE = 10.0
# Writes to a lost connection that asyncio ignores silently; it warns of each that follows.
cdef enum:
    IGNORED_WRITES = 4

# Flags of a channel
cdef enum:
    UNSTARTED = 1 << 0  # reading has not begun
    PAUSED = 1 << 1  # the protocol wants no input now
    EOF_RECEIVED = 1 << 2  # the peer sends no more, and the protocol keeps the connection
    EOF_SENT = 1 << 3  # write_eof was called
    CLOSING = 1 << 4  # close was called, or the end has come
    FAILED = 1 << 5  # output failed; what was received is still delivered
    LOST = 1 << 6  # connection_lost is scheduled or has been called
    WRITE_PAUSED = 1 << 7  # pause_writing was called last, not resume_writing
    BUFFERED = 1 << 8  # the protocol has get_buffer
    DRAINING = 1 << 9  # _drain is scheduled
    TIMED = 1 << 10  # _lose_patience is scheduled
    RESUMED = 1 << 11  # reading was resumed since it was
    LINKED = 1 << 12  # the protocol is a connection of ours
    IGNORED = 1 << 13  # from here on: number of ignored writes
    ALL_IGNORED = IGNORED * IGNORED_WRITES

cdef uint32_t _forks = 0  # how many forks lie between the first process and this one
_reactors = weakref.WeakValueDictionary()  # by id of the loop


def _forked():
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


cdef inline int64_t _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef object _os_error(int number):
    return OSError(number, os.strerror(number))  # ConnectionResetError and so on


def reactor_of(loop):
    """The reactor of a loop, made when it is first asked for; None where connections should have asyncio's transports.

    That is with WSPROTO_FAST_REACTOR=0 in the environment, and on a loop that cannot watch descriptors.
    """
    if os.environ.get("WSPROTO_FAST_REACTOR") == "0":
        return None
    cdef Reactor reactor = _reactors.get(id(loop))
    # Another loop may have had that address; the epoll of the process that we were forked from is not ours.
    if reactor is None or reactor._loop_reference() is not loop or reactor._forks != _forks:
        reactor = Reactor(loop)
        try:
            loop.add_reader(reactor._epoll, reactor.ready)
            loop.remove_reader(reactor._epoll)
        except NotImplementedError:
            return None
        _reactors[id(loop)] = reactor
    return reactor


@cython.final
cdef class Reactor:
    """The sockets of one loop. The loop calls ``ready`` when one of them has something to tell.

    Holds the loop only while it has sockets: until their connections have ended, and their listeners are closed.
    """

    cdef object __weakref__
    cdef object _loop  # None while there are no sockets
    cdef object _loop_reference
    cdef list _table  # Watched or None, by descriptor: what the kernel may tell of
    cdef Py_ssize_t _sockets
    cdef Py_ssize_t _watching  # how many are in the table
    cdef Watched _watched_last  # came into the table last
    cdef Watched _alone  # in the loop's own selector, and nobody in the epoll
    cdef int _epoll
    cdef uint32_t _forks
    cdef uint32_t _generation  # of what came into the table last
    # What epoll_wait told last, and how much of that has been done: events[done:told] are dealt with first next time,
    # so that no socket is passed over again and again.
    cdef int _told
    cdef int _done
    cdef epoll_event _events[BATCH]
    cdef int64_t _deadline  # of the present call of ready
    cdef bint _direct  # no task is running meanwhile
    cdef PyObject *_spare  # bytes of READ_SIZE that nobody else has

    def __cinit__(self):
        self._epoll = -1

    def __init__(self, loop):
        if self._epoll != -1:
            raise RuntimeError("a reactor is made once")
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll == -1:
            raise _os_error(errno)
        self._forks = _forks
        self._table = []
        self._loop_reference = weakref.ref(loop)

    def __dealloc__(self):
        Py_XDECREF(self._spare)
        if self._epoll != -1:
            close_fd(self._epoll)

    def ready(self):
        """Deal with sockets that have something to tell, for about a millisecond. The rest is told again."""
        cdef uint64_t key
        cdef uint32_t events
        cdef Watched entry
        if self._forks != _forks:
            return
        self._deadline = _now() + TURN
        self._direct = asyncio.current_task(self._loop) is None  # else somebody runs the loop within a task
        if self._watching == 1 and self._done == self._told:
            entry = self._watched_last  # a client's, often: there is no need to ask which one it is
            if entry is not None and entry._watched:
                entry._handle(entry._watched)
                return
        while True:
            if self._done == self._told:
                self._done = 0
                self._told = 0
                self._told = max(epoll_wait(self._epoll, self._events, BATCH, 0), 0)
            while self._done < self._told:
                key = self._events[self._done].data.u64
                events = self._events[self._done].events
                self._done += 1
                entry = self._find(key)
                if entry is not None:
                    entry._handle(events)
                    if _now() >= self._deadline:
                        return
            if self._told < BATCH:
                return

    cdef Watched _find(self, uint64_t key):
        cdef Py_ssize_t fd = <Py_ssize_t>(key & 0xFFFFFFFF)
        cdef object entry
        if fd < PyList_GET_SIZE(self._table):
            entry = self._table[fd]
            if entry is not None and (<Watched>entry)._generation == <uint32_t>(key >> 32):
                return <Watched>entry
        return None

    cdef int _join(self) except -1:
        """There is one socket more."""
        if self._loop is None:
            loop = self._loop_reference()
            if loop is None or self._forks != _forks:
                raise RuntimeError("the event loop of this reactor is gone")
            # Otherwise the callbacks of all connections would run in the context of whoever made the first one.
            contextvars.Context().run(loop.add_reader, self._epoll, self.ready)
            self._loop = loop
        self._sockets += 1
        return 0

    cdef int _leave(self) except -1:
        """There is one socket less."""
        self._sockets -= 1
        if self._sockets or self._forks != _forks:
            return 0
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._epoll)
        return 0

    # One connection alone, as programs that are clients often have it, is told of by the loop itself: that saves the
    # kernel's way from one epoll to the other, some microseconds for each message.

    cdef bint _try_alone(self, Watched entry) except -1:
        """Whether the loop tells of it from now on."""
        if self._watching:
            return False
        try:
            contextvars.Context().run(self._loop.add_reader, entry._fd, self.ready)
        except Exception:
            return False
        self._alone = entry
        return True

    cdef int _end_alone(self) except -1:
        """Have the loop tell of it no more."""
        cdef Watched entry = self._alone
        self._alone = None
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(entry._fd)
        return 0

    cdef int _join_others(self) except -1:
        """It is not alone any more, or wants more than to be read. Returns 0 or an error number."""
        cdef epoll_event event
        event.events = self._alone._watched
        event.data.u64 = (<uint64_t>self._alone._generation << 32) | <uint32_t>self._alone._fd
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._alone._fd, &event) == -1:
            return errno
        self._end_alone()
        return 0


cdef class Watched:
    """A descriptor that a reactor may watch. In the reactor's table while it does, which then keeps it alive."""

    cdef object __weakref__
    cdef Reactor _reactor
    cdef int _fd
    cdef uint32_t _generation
    cdef uint32_t _watched  # EPOLLIN, EPOLLOUT; 0: not in the epoll
    cdef uint32_t _flags

    def __cinit__(self):
        self._fd = -1

    cdef int _handle(self, uint32_t events) except -1:
        """Do what has become possible. Raises nothing but SystemExit and KeyboardInterrupt."""
        raise NotImplementedError

    cdef int _watch(self, uint32_t wanted) except -1:
        """Have the kernel tell of just these. The caller has a reference. Returns 0 or an error number."""
        cdef Reactor reactor = self._reactor
        cdef list table = reactor._table
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_MOD
        cdef int number
        if self._watched and table[self._fd] is not self:
            self._watched = 0  # a listener's descriptor, which its owner has closed, and which is used again
            reactor._watching -= 1
        if wanted == self._watched:
            return 0
        if reactor._forks != _forks:  # the epoll is our parent's as well
            return 0
        if reactor._alone is not None and wanted:
            number = reactor._join_others()
            if number:
                return number
        if not wanted:
            self._watched = 0
            table[self._fd] = None
            reactor._watching -= 1
            if reactor._watched_last is self:
                reactor._watched_last = None
            if reactor._alone is self:
                reactor._end_alone()
            else:
                epoll_ctl(reactor._epoll, EPOLL_CTL_DEL, self._fd, NULL)  # fails if a listener's owner has closed it
            return 0
        if not self._watched:
            operation = EPOLL_CTL_ADD
            while PyList_GET_SIZE(table) <= self._fd:
                table.append(None)
            reactor._generation += 1
            self._generation = reactor._generation
        event.events = wanted
        event.data.u64 = (<uint64_t>self._generation << 32) | <uint32_t>self._fd
        if wanted == EPOLLIN and isinstance(self, Channel) and reactor._try_alone(self):
            pass
        elif epoll_ctl(reactor._epoll, operation, self._fd, &event) == -1:
            return errno
        if not self._watched:
            reactor._watching += 1
            reactor._watched_last = self
        self._watched = wanted
        table[self._fd] = self
        return 0


# Addresses ------------------------------------------------------------------------------------------------------------

cdef bytes _address_bytes(sockaddr_storage *address, socklen_t size):
    """An address as it is kept: as the kernel wrote it, without the zeros that end one of IPv4; None if it did not."""
    if size < sizeof(address.ss_family):
        return None
    size = min(size, sizeof(sockaddr_storage))
    return PyBytes_FromStringAndSize(<char *>address, 8 if address.ss_family == AF_INET else size)


cdef object _address_object(bytes kept):
    """What the methods of Python's sockets return for an address; None for None."""
    cdef sockaddr_storage address
    cdef sockaddr_in *inet = <sockaddr_in *>&address
    cdef sockaddr_in6 *inet6 = <sockaddr_in6 *>&address
    cdef char text[64]
    if kept is None:
        return None
    memset(&address, 0, sizeof(address))
    memcpy(&address, PyBytes_AS_STRING(kept), PyBytes_GET_SIZE(kept))
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &inet.sin_addr, text, sizeof(text))
        return text.decode(), ntohs(inet.sin_port)
    if address.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &inet6.sin6_addr, text, sizeof(text))
        return text.decode(), ntohs(inet6.sin6_port), ntohl(inet6.sin6_flowinfo), inet6.sin6_scope_id
    if address.ss_family == AF_UNIX:
        path = kept[2:]
        if path.startswith(b"\0"):  # Linux's abstract names
            return path
        return os.fsdecode(path.partition(b"\0")[0])
    return address.ss_family, kept[2:]


class BorrowedSocket(socket.socket):
    """A Python socket over a channel's descriptor, which it does not close."""

    __slots__ = ()

    def __del__(self):
        pass


# Channel --------------------------------------------------------------------------------------------------------------

cdef inline char *_start(PyObject *chunk) noexcept:
    if PyBytes_CheckExact(<object>chunk):
        return PyBytes_AS_STRING(<object>chunk)
    return <char *>PyMemoryView_GET_BUFFER(<object>chunk).buf


cdef inline Py_ssize_t _size(PyObject *chunk) noexcept:
    if PyBytes_CheckExact(<object>chunk):
        return PyBytes_GET_SIZE(<object>chunk)
    return PyMemoryView_GET_BUFFER(<object>chunk).len


@cython.final
@cython.no_gc
cdef class Output:
    """What a channel could not send yet: bytes (and see ``own``), the first without its first ``sent`` bytes."""

    cdef list chunks
    cdef Py_ssize_t sent
    cdef Py_ssize_t size

    cdef int gather(self, iovec *parts, Py_ssize_t *total):
        """Point ``parts`` at what may leave in one call; returns how many of them."""
        cdef Py_ssize_t size = 0, length
        cdef int count = 0
        cdef Py_ssize_t limit = min(PyList_GET_SIZE(self.chunks), <Py_ssize_t>MAX_CHUNKS)
        cdef char *start
        cdef PyObject *chunk
        while count < limit and size < MAX_GATHERED:
            chunk = PyList_GET_ITEM(self.chunks, count)
            start = _start(chunk)
            length = _size(chunk)
            if count == 0:
                start += self.sent
                length -= self.sent
            parts[count].iov_base = start
            parts[count].iov_len = length
            size += length
            count += 1
        total[0] = size
        return count

    cdef int advance(self, Py_ssize_t sent) except -1:
        cdef Py_ssize_t complete = 0, length
        self.size -= sent
        sent += self.sent
        while complete < PyList_GET_SIZE(self.chunks):
            length = _size(PyList_GET_ITEM(self.chunks, complete))
            if sent < length:
                break
            sent -= length
            complete += 1
        del self.chunks[:complete]
        self.sent = sent
        return 0

    cdef int own(self) except -1:
        """Copy what its owner may change: views, which only ``writelines`` puts here, and only while it runs."""
        cdef Py_ssize_t i
        for i in range(PyList_GET_SIZE(self.chunks)):
            chunk = self.chunks[i]
            if not PyBytes_CheckExact(chunk):
                self.chunks[i] = chunk[self.sent:].tobytes() if i == 0 else chunk.tobytes()
                if i == 0:
                    self.sent = 0
        return 0


cdef inline Py_ssize_t _receive(int fd, void *target, Py_ssize_t size) noexcept:
    """The number of bytes received, 0 at their end, or minus an error number."""
    cdef ssize_t n
    while True:
        n = recv(fd, target, size, 0)
        if n >= 0:
            return n
        if errno != EINTR:
            return -errno


@cython.final
cdef class Channel(Watched):
    """A connected socket, as asyncio's transport of one where nothing else is said.

    It owns the descriptor. Input is read once ``start`` was called. ``connection_lost`` is called by the loop, never
    from within a method.

    When output fails, received data are not lost: output is dropped, what the kernel still holds is delivered, then
    the protocol loses the connection with that error. Should it not read for ten seconds meanwhile, then at once.
    """

    cdef object _protocol
    cdef object _context  # of the protocol's callbacks
    cdef Output _output  # None: nothing waits
    cdef Py_ssize_t _high
    cdef Py_ssize_t _low
    cdef object _error  # of the output that failed
    cdef object _socket  # a TransportSocket, when somebody asked for it
    cdef bytes _peer  # addresses as of _address_bytes; the second one is filled when the descriptor is closed
    cdef bytes _name

    def __init__(self, Reactor reactor not None, sock, protocol):
        """Adopt a connected socket: an object that ``detach``es, or the descriptor of a non-blocking one.

        If this fails the socket is still the caller's.
        """
        cdef sockaddr_storage address
        cdef socklen_t size = sizeof(address)
        cdef bytes peer = None
        cdef int fd = sock if isinstance(sock, int) else sock.fileno()
        if self._reactor is not None:
            raise RuntimeError("a channel is made once")
        if fd < 0:
            raise ValueError("the socket is closed")
        if not isinstance(sock, int):
            sock.setblocking(False)
        if getpeername(fd, <sockaddr *>&address, &size) == 0:
            peer = _address_bytes(&address, size)
        self._open(reactor, fd, protocol, peer, contextvars.copy_context())
        _set_nodelay(fd)
        if not isinstance(sock, int):
            sock.detach()

    cdef int _open(self, Reactor reactor, int fd, protocol, bytes peer, context) except -1:
        self._set_protocol(protocol)
        self._set_limits(None, None)
        reactor._join()
        self._reactor = reactor
        self._fd = fd
        self._flags |= UNSTARTED
        self._peer = peer
        self._context = context
        return 0

    def __del__(self):
        # Not while it is in the reactor's table, unless that goes as well: so nothing of the reactor is needed.
        if self._fd == -1:
            return
        if self._reactor._forks == _forks:
            try:
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            finally:
                self._reactor._sockets -= 1  # and the loop is left alone: this may be another thread
                self._close_fd()
        else:
            self._close_fd()

    def __repr__(self):
        state = "closed " if self._fd == -1 else "closing " if self._flags & CLOSING else ""
        reading = "polling" if self._watched & EPOLLIN else "idle"
        writing = "polling" if self._watched & EPOLLOUT else "idle"
        size = self._waiting()
        return f"<Channel {state}fd={self._fd} read={reading} write=<{writing}, bufsize={size}>>"

    def start(self, received=b""):
        """Call the protocol's ``connection_made``, then read. What it raises ends the channel and is raised here.

        ``received`` was read by somebody else: the loop calls the protocol with it before anything else is read.
        """
        try:
            self._protocol.connection_made(self)
        except BaseException:
            self._discard()
            raise
        if received:
            self._call_soon(self._deliver, received)
        else:
            self._flags &= ~UNSTARTED
            self._arm()

    # What the protocol asks for ---------------------------------------------------------------------------------------

    def get_protocol(self):
        return self._protocol

    def set_protocol(self, protocol):
        self._set_protocol(protocol)

    cdef int _set_protocol(self, protocol) except -1:
        self._protocol = protocol
        self._flags &= ~(BUFFERED | LINKED)
        if hasattr(protocol, "get_buffer"):
            self._flags |= BUFFERED
        if isinstance(protocol, Link):
            self._flags |= LINKED
        return 0

    def get_extra_info(self, name, default=None):
        """``socket``, ``sockname`` and ``peername``, also when the channel is closed."""
        if name == "peername":
            return default if self._peer is None else _address_object(self._peer)
        if name == "sockname":
            self._keep_name()
            return default if self._name is None else _address_object(self._name)
        if name == "socket":
            if self._socket is None:
                if self._fd == -1:
                    self._socket = TransportSocket(BorrowedSocket.__new__(BorrowedSocket))
                else:
                    sock = BorrowedSocket(fileno=self._fd)
                    sock.setblocking(False)
                    self._socket = TransportSocket(sock)
            return self._socket
        return default

    cdef void _keep_name(self):
        cdef sockaddr_storage address
        cdef socklen_t size = sizeof(address)
        if self._name is None and self._fd != -1 and getsockname(self._fd, <sockaddr *>&address, &size) == 0:
            self._name = _address_bytes(&address, size)

    def is_closing(self):
        return bool(self._flags & (CLOSING | FAILED))

    def is_reading(self):
        return not self._flags & (CLOSING | PAUSED)

    def pause_reading(self):
        if self._flags & (CLOSING | PAUSED):
            return
        # The epoll is told when there is something to read: often enough reading goes on before.
        self._flags |= PAUSED
        if self._flags & FAILED:
            self._be_patient()

    def resume_reading(self):
        if self._flags & CLOSING or not self._flags & PAUSED:
            return
        self._flags = (self._flags & ~PAUSED) | RESUMED
        if self._flags & FAILED:
            self._drain_soon()
        else:
            self._arm()

    def close(self):
        if self._flags & CLOSING:
            return
        self._flags |= CLOSING
        if self._output is None:
            self._end(self._error)

    def abort(self):
        self._end(self._error)

    def can_write_eof(self):
        return True

    def write_eof(self):
        """End the output when all of it has left. On a connection that the peer has reset: nothing, reading tells."""
        if self._flags & (CLOSING | EOF_SENT):
            return
        self._flags |= EOF_SENT
        if self._output is None and not self._flags & FAILED:
            shutdown(self._fd, SHUT_WR)

    def get_write_buffer_size(self):
        return self._waiting()

    def get_write_buffer_limits(self):
        return self._low, self._high

    def set_write_buffer_limits(self, high=None, low=None):
        self._set_limits(high, low)
        self._pause_protocol()

    cdef int _set_limits(self, high, low) except -1:
        if high is None:
            high = 65536 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high = high
        self._low = low
        return 0

    # Output -----------------------------------------------------------------------------------------------------------

    cdef inline Py_ssize_t _waiting(self) noexcept:
        return 0 if self._output is None else self._output.size

    def write(self, data):
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            self._write(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._write(data, <char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int _write(self, data, const char *start, Py_ssize_t size) except -1:
        cdef Py_ssize_t sent = 0
        if self._flags & EOF_SENT:
            raise RuntimeError("Cannot call write() after write_eof()")
        if size == 0 or self._ignores_output():
            return 0
        if self._output is None:
            sent = self._send(start, size)
            if sent == size or self._flags & FAILED:
                return 0
        if not PyBytes_CheckExact(data):
            data = PyBytes_FromStringAndSize(start + sent, size - sent)
            size -= sent
            sent = 0
        self._wait([data], sent, size - sent)
        self._pause_protocol()
        return 0

    def writelines(self, chunks):
        """Write any number of bytes-like objects. They are not joined."""
        cdef list ours = []
        cdef Py_ssize_t size = 0
        if self._flags & EOF_SENT:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        for chunk in chunks:
            if not PyBytes_CheckExact(chunk):
                chunk = memoryview(chunk)
                if not PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(chunk), b"C"):
                    chunk = chunk.tobytes()
            if _size(<PyObject *>chunk):
                ours.append(chunk)
                size += _size(<PyObject *>chunk)
        if size == 0 or self._ignores_output():
            return
        if self._output is None:
            self._output = Output.__new__(Output)
            self._output.chunks = ours
            self._output.size = size
            self._send_output()
            if self._output is not None:
                self._output.own()
                self._arm()
        else:
            self._wait([chunk if PyBytes_CheckExact(chunk) else chunk.tobytes() for chunk in ours], 0, size)
        self._pause_protocol()

    cdef bint _ignores_output(self) except -1:
        """Whether there is no use in writing. As asyncio's transports: who does not notice will read it in the log."""
        if self._flags & LOST:
            if self._flags >= ALL_IGNORED:
                logger.warning("socket.send() raised exception.")
            else:
                self._flags += IGNORED
        return self._flags & (LOST | FAILED) != 0

    cdef int _wait(self, list chunks, Py_ssize_t sent, Py_ssize_t size) except -1:
        """Send these when the kernel takes them, but for the first ``sent`` bytes."""
        if self._output is None:
            self._output = Output.__new__(Output)
            self._output.chunks = chunks
            self._output.sent = sent
        else:
            self._output.chunks += chunks
        self._output.size += size
        return self._arm()

    cdef Py_ssize_t _send(self, const char *start, Py_ssize_t size) except -1:
        """How many bytes the kernel took. It may also have failed."""
        cdef ssize_t n
        while True:
            n = send(self._fd, start, size, MSG_NOSIGNAL)
            if n >= 0:
                return n
            if errno != EINTR:
                break
        if errno != EAGAIN:
            self._fail_output(errno)
        return 0

    cdef int _send_output(self) except -1:
        """Send what waits, as much as the kernel takes."""
        cdef iovec parts[MAX_CHUNKS]
        cdef msghdr message
        cdef ssize_t n
        cdef Py_ssize_t size
        cdef Output output = self._output
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        while output.size:
            message.msg_iovlen = output.gather(parts, &size)
            n = sendmsg(self._fd, &message, MSG_NOSIGNAL)
            if n >= 0:
                output.advance(n)
                if n < size:
                    return 0
            elif errno == EAGAIN:
                return 0
            elif errno != EINTR:
                return self._fail_output(errno)
        self._output = None
        return 0

    cdef int _fail_output(self, int number) except -1:
        """No more can be sent."""
        exc = _os_error(number)
        self._output = None
        self._log(exc, "Fatal write error on socket transport")
        self._error = exc
        self._flags |= FAILED
        if self._flags & (CLOSING | EOF_RECEIVED):
            return self._end(exc)
        self._watch(0)
        if self._flags & PAUSED:
            return self._be_patient()
        return self._drain_soon()

    cdef int _pause_protocol(self) except -1:
        if self._waiting() > self._high and not self._flags & WRITE_PAUSED:
            self._flags |= WRITE_PAUSED
            try:
                self._protocol.pause_writing()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._complain(exc, "protocol.pause_writing() failed")
        return 0

    cdef int _resume_protocol(self) except -1:
        if self._flags & WRITE_PAUSED and self._waiting() <= self._low:
            self._flags &= ~WRITE_PAUSED
            try:
                self._protocol.resume_writing()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._complain(exc, "protocol.resume_writing() failed")
        return 0

    # What the kernel tells --------------------------------------------------------------------------------------------

    cdef inline uint32_t _wanted(self) noexcept:
        cdef uint32_t wanted = 0
        if self._flags & (LOST | FAILED):
            return 0
        if self._output is not None:
            wanted |= EPOLLOUT
        if not self._flags & (UNSTARTED | PAUSED | EOF_RECEIVED | CLOSING):
            wanted |= EPOLLIN
        return wanted

    cdef int _arm(self) except -1:
        """Have the kernel tell of what is wanted. What is not wanted any more may wait until it tells of it."""
        cdef uint32_t wanted = self._wanted()
        if wanted & ~self._watched:
            self._watch_just(wanted)
        return 0

    cdef int _watch_just(self, uint32_t wanted) except -1:
        cdef int number = self._watch(wanted)
        if number:
            self._fail(_os_error(number), "Fatal error on transport")
        return 0

    cdef int _handle(self, uint32_t events) except -1:
        PyContext_Enter(self._context)
        try:
            # Errors come unasked, and are for both.
            if events & ~EPOLLOUT and self._wanted() & EPOLLIN:
                self._read()
            if events & ~EPOLLIN and self._wanted() & EPOLLOUT:
                self._write_ready()
        finally:
            PyContext_Exit(self._context)
        cdef uint32_t wanted = self._wanted()
        # Of what nobody wants the kernel would tell again and again.
        if self._watched & ~wanted:
            self._watch_just(wanted)
        return 0

    cdef int _write_ready(self) except -1:
        self._send_output()
        try:
            if not self._flags & LOST:
                self._resume_protocol()  # which may write
        finally:
            if self._output is None and not self._flags & (LOST | FAILED):
                if self._flags & CLOSING:
                    self._end(None)
                elif self._flags & EOF_SENT:
                    shutdown(self._fd, SHUT_WR)
        return 0

    cdef int _read(self) except -1:
        """Read once and call the protocol."""
        if self._flags & BUFFERED and not (self._flags & LINKED and not (<Link>self._protocol)._reads_in_place()):
            return self._read_into_buffer()
        cdef bytes data = self._receive_bytes()
        return 0 if data is None else self._hand_over(data)

    cdef int _hand_over(self, bytes data) except -1:
        cdef Link link
        try:
            if self._flags & LINKED:
                link = self._protocol
                link._received(data, self._reactor._direct)
            else:
                self._protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(exc, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef int _read_into_buffer(self) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t n
        if not self._get_buffer(&view):
            return 0
        n = _receive(self._fd, view.buf, view.len)
        PyBuffer_Release(&view)
        if n <= 0:
            return self._nothing_received(<int>-n)
        return self._update_buffer(n)

    cdef bint _get_buffer(self, Py_buffer *view) except -1:
        """Fill the view with memory of the protocol; false if that has failed, which then is done with."""
        try:
            PyObject_GetBuffer(self._protocol.get_buffer(-1), view, PyBUF_WRITABLE)
            if view.len == 0:
                PyBuffer_Release(view)
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(exc, "Fatal error: protocol.get_buffer() call failed.")
            return False
        return True

    cdef int _update_buffer(self, Py_ssize_t size) except -1:
        try:
            self._protocol.buffer_updated(size)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(exc, "Fatal error: protocol.buffer_updated() call failed.")
        return 0

    cdef bytes _receive_bytes(self):
        """What one read gives, at most READ_SIZE bytes. None if that is nothing: what follows from it is done."""
        cdef Reactor reactor = self._reactor
        cdef PyObject *spare = reactor._spare
        cdef bytes data
        cdef Py_ssize_t n
        if spare is NULL:
            spare = new_bytes(NULL, READ_SIZE)
            reactor._spare = spare
        n = _receive(self._fd, storage(spare), READ_SIZE)
        if n <= 0:
            self._nothing_received(<int>-n)
            return None
        if n < COPIED:
            return PyBytes_FromStringAndSize(storage(spare), n)
        reactor._spare = NULL
        _PyBytes_Resize(&spare, n)
        data = <bytes>spare
        Py_DECREF(data)  # it was ours
        return data

    cdef int _nothing_received(self, int number) except -1:
        """A read gave an error number, or 0 at the end of the peer's data."""
        if number == 0:
            return self._receive_eof()
        if number != EAGAIN:
            return self._fail(_os_error(number), "Fatal read error on socket transport")
        if self._flags & FAILED:  # nothing is left
            return self._end(self._error)
        return 0

    cdef int _receive_eof(self) except -1:
        if self._flags & FAILED:
            return self._end(self._error)
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            return self._fail(exc, "Fatal error: protocol.eof_received() call failed.")
        if keep_open:
            self._flags |= EOF_RECEIVED
        else:
            self.close()
        return 0

    # What the loop calls ----------------------------------------------------------------------------------------------

    cdef int _call_soon(self, callback, argument) except -1:
        self._reactor._loop.call_soon(callback, argument, context=self._context)
        return 0

    def _deliver(self, bytes data not None):
        """Give the protocol what somebody else has read, as much of it as it takes. The rest has its turn later."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_buffer view
        if self._flags & CLOSING:
            return
        try:
            if not self._flags & BUFFERED:
                self._hand_over(data)
            elif self._get_buffer(&view):
                size = min(view.len, size)
                memcpy(view.buf, PyBytes_AS_STRING(data), size)
                PyBuffer_Release(&view)
                self._update_buffer(size)
        finally:
            if size < PyBytes_GET_SIZE(data):
                self._call_soon(self._deliver, data[size:])
            else:
                self._flags &= ~UNSTARTED
                if self._flags & FAILED:
                    self._drain_soon()
                else:
                    self._arm()

    cdef int _drain_soon(self) except -1:
        if not self._flags & (DRAINING | CLOSING):
            self._flags |= DRAINING
            self._call_soon(self._drain, None)
        return 0

    def _drain(self, _):
        """Output has failed. Read on, a piece in each turn of the loop, until there is nothing or an end."""
        self._flags &= ~DRAINING
        if self._flags & (UNSTARTED | PAUSED | CLOSING):
            return
        try:
            self._read()
        finally:
            if not self._flags & (PAUSED | CLOSING):
                self._drain_soon()

    cdef int _be_patient(self) except -1:
        if not self._flags & TIMED:
            self._flags = (self._flags | TIMED) & ~RESUMED
            self._reactor._loop.call_later(PATIENCE, self._lose_patience, context=self._context)
        return 0

    def _lose_patience(self):
        """Output failed, and reading was paused. Whoever never reads on would never learn of it."""
        self._flags &= ~TIMED
        if self._flags & PAUSED and not self._flags & CLOSING:
            if self._flags & RESUMED:
                self._be_patient()
            else:
                self._end(self._error)

    # The end ----------------------------------------------------------------------------------------------------------

    cdef int _log(self, exc, message) except -1:
        if self._reactor._loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exc)
        return 0

    cdef int _complain(self, exc, message) except -1:
        self._reactor._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )
        return 0

    cdef int _fail(self, exc, message) except -1:
        if isinstance(exc, OSError):
            self._log(exc, message)
        else:
            self._complain(exc, message)
        return self._end(exc if self._error is None else self._error)

    cdef int _end(self, exc) except -1:
        """Drop the output, and have connection_lost called."""
        if self._flags & LOST:
            return 0
        self._flags |= LOST | CLOSING
        self._output = None
        self._call_soon(self._lose_connection, exc)
        self._watch(0)
        return 0

    def _lose_connection(self, exc):
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(exc)
        finally:
            self._discard()

    cdef int _discard(self) except -1:
        """End the channel without a word."""
        cdef Reactor reactor = self._reactor
        self._flags |= LOST | CLOSING
        self._output = None
        self._protocol = None
        self._context = None
        self._error = None
        if self._fd != -1:
            self._close_fd()
            reactor._leave()
        return 0

    cdef int _close_fd(self) except -1:
        cdef int fd = self._fd
        self._keep_name()
        self._watch(0)
        self._fd = -1
        if self._socket is not None:
            self._socket._sock.detach()
        close_fd(fd)
        return 0


cdef void _set_nodelay(int fd) noexcept:
    cdef int on = 1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))  # fails on other sockets, which is as well


# Listener -------------------------------------------------------------------------------------------------------------

@cython.final
cdef class Listener(Watched):
    """Accepts the connections of a listening socket, which stays its owner's. ``close`` it before the socket.

    For each ``factory`` makes a protocol, whose ``connection_made`` is called with the channel.
    """

    cdef object _socket
    cdef object _factory
    cdef object _context
    cdef object _retry  # a TimerHandle, while accepting has failed
    cdef int _backlog

    def __init__(self, Reactor reactor not None, sock, factory, int backlog=100):
        if self._fd != -1:
            raise RuntimeError("a listener is made once")
        sock.setblocking(False)
        cdef int fd = sock.fileno()
        if fd < 0:
            raise ValueError("the socket is closed")
        reactor._join()
        self._reactor = reactor
        self._fd = fd
        self._socket = sock
        self._factory = factory
        self._backlog = max(backlog, 1)
        self._context = contextvars.copy_context()

    def __del__(self):
        if self._fd != -1 and self._reactor._forks == _forks:
            self._reactor._sockets -= 1

    def start(self):
        """Accept connections. Nothing if it does."""
        if self._fd == -1:
            raise RuntimeError("the listener is closed")
        if self._retry is None:
            number = self._watch(EPOLLIN)
            if number:
                raise _os_error(number)

    def stop(self):
        """Leave connections to the kernel's queue until ``start``."""
        if self._fd != -1:
            self._watch(0)
            self._cancel_retry()

    def close(self):
        """Accept no more, for ever."""
        if self._fd != -1:
            self.stop()
            self._fd = -1
            self._factory = None
            self._context = None
            self._reactor._leave()

    cdef int _cancel_retry(self) except -1:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        return 0

    cdef int _handle(self, uint32_t events) except -1:
        context = self._context
        PyContext_Enter(context)
        try:
            self._accept()
        finally:
            PyContext_Exit(context)
        return 0

    cdef int _accept(self) except -1:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd, _
        for _ in range(min(self._backlog, <int>ACCEPTED)):
            size = sizeof(address)
            fd = accept4(self._fd, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd == -1:
                if errno == EAGAIN:
                    return 0
                # accept(2): errors of the connection that there was; EPERM: the firewall's
                if errno not in (EINTR, ECONNABORTED, EPROTO, EPERM):
                    return self._fail(errno)
            else:
                self._connect(fd, _address_bytes(&address, size))
            if not self._watched or _now() >= self._reactor._deadline:
                return 0
        return 0

    cdef int _connect(self, int fd, bytes peer) except -1:
        """Make channel and protocol of an accepted connection."""
        cdef Channel channel = Channel.__new__(Channel)
        protocol = None
        try:
            protocol = self._factory()
            channel._open(self._reactor, fd, protocol, peer, PyContext_Copy(self._context))
            _set_nodelay(fd)
            channel.start()
        except BaseException as exc:
            if channel._reactor is None:  # it does not own the descriptor
                close_fd(fd)
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            self._complain(exc, "Error on transport creation for incoming connection", protocol)
        return 0

    cdef int _fail(self, int number) except -1:
        """accept4 failed, and would at once fail again."""
        self._complain(
            _os_error(number),
            "socket.accept() out of system resource"
            if number in (EMFILE, ENFILE, ENOBUFS, ENOMEM)
            else "socket.accept() failed",
            None,
        )
        if self._watched:
            self._watch(0)
            self._retry = self._reactor._loop.call_later(ACCEPT_RETRY_DELAY, self._try_again)
        return 0

    def _try_again(self):
        self._retry = None
        self.start()

    cdef int _complain(self, exc, message, protocol) except -1:
        context = {"message": message, "exception": exc, "socket": TransportSocket(self._socket)}
        if protocol is not None:
            context["protocol"] = protocol
        self._reactor._loop.call_exception_handler(context)
        return 0


# Clients --------------------------------------------------------------------------------------------------------------

class Placeholder(asyncio.Protocol):
    """The protocol of a connection that asyncio makes, and that ``adopt`` then takes over. It keeps what is read."""

    received = b""
    error = None
    transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()

    def data_received(self, data):
        # CPython 3.10 and uvloop begin to read after connection_made, paused or not. No more than this once: else the
        # connection's end might be read as well, which the channel has to see.
        self.received += data
        self.transport.resume_reading()
        self.transport.pause_reading()

    def eof_received(self):
        return True  # the channel will read it again

    def connection_lost(self, exc):
        self.error = exc


def adopt(Reactor reactor not None, transport, protocol):
    """A started channel in place of a transport whose protocol is a Placeholder.

    ``protocol.connection_made`` has been called. OSError if the connection is lost already.
    """
    placeholder = transport.get_protocol()
    if transport.is_closing():
        error = getattr(placeholder, "error", None)  # asyncio lets go of protocols that have lost their connection
        raise error or ConnectionResetError("the connection was lost as soon as it was made")
    try:
        fd = os.dup(transport.get_extra_info("socket").fileno())
    finally:
        transport.abort()
    try:
        channel = Channel(reactor, fd, protocol)
    except BaseException:
        os.close(fd)
        raise
    channel.start(placeholder.received)
    return channel
