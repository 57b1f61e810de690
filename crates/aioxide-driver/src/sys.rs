//! The syscalls, each once.
//!
//! Safe functions over raw descriptors, for the backends and for hosts that act at once instead of
//! submitting an operation. Each is named by what it does and cites its manual page; errors are
//! `std::io::Error` with the errno untouched. A call that a signal interrupted is made again.
//!
//! # Invariants
//! A number that is not open is an ordinary `EBADF`, never undefined behaviour: no function here
//! closes a descriptor or keeps one.

#![expect(unsafe_code, reason = "raw descriptors become borrowed or owned ones here and nowhere else")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, epoll};
use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
    ipproto,
};
use rustix::time::ClockId;

use crate::SocketAddrAny;
use crate::datagrams::Received;

/// Receives into `memory`; zero is end of file (recv(2), without blocking).
pub fn receive(socket: RawFd, memory: &mut [u8]) -> io::Result<usize> {
    let socket = borrow(socket)?;
    let (length, _) = retry_on_intr(|| rustix::net::recv(socket, &mut *memory, RecvFlags::DONTWAIT))?;
    Ok(length)
}

/// Receives one datagram and its source (recvfrom(2), without blocking).
pub fn receive_message(socket: RawFd, memory: &mut [u8]) -> io::Result<(usize, Option<SocketAddrAny>)> {
    let socket = borrow(socket)?;
    let (length, _, source) =
        retry_on_intr(|| rustix::net::recvfrom(socket, &mut *memory, RecvFlags::DONTWAIT))?;
    Ok((length, source))
}

/// Receives as many datagrams as there are, each into one of `slots`, and appends their lengths and sources to
/// `received` (recvmmsg(2), without blocking). An error is one that the first of them met.
pub(crate) fn receive_messages(
    socket: RawFd,
    slots: &mut [IoSliceMut<'_>],
    received: &mut Vec<Received>,
) -> io::Result<()> {
    let socket = borrow(socket)?;
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; MESSAGES_PER_CALL];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_PER_CALL];
    let count = slots.len().min(MESSAGES_PER_CALL);
    for ((header, name), slot) in headers.iter_mut().zip(&mut names).zip(&mut slots[..count]) {
        // SAFETY: all zeroes is a valid `mmsghdr`: null pointers and lengths of zero.
        let header = header.write(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_name = name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // An `IoSliceMut` is an `iovec` in memory.
        header.msg_hdr.msg_iov = std::ptr::from_mut(slot).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    let answered = retry_on_intr(|| {
        // SAFETY: `count` headers are initialised, `count` is not above their number. Each points to a name
        // and to a slot that are borrowed for the call, with their true lengths.
        let answered = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(answered)
            .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    })?;
    for (header, name) in headers.iter().zip(&names).take(answered) {
        // SAFETY: initialised above, and filled in by the kernel.
        let header = unsafe { header.assume_init_ref() };
        let length = header.msg_hdr.msg_namelen;
        let source = if (length as usize) < size_of::<libc::sa_family_t>() {
            None
        } else {
            // SAFETY: the kernel wrote an address of `length` bytes, which is not more than it was offered.
            Some(unsafe { SocketAddrAny::read(name.as_ptr().cast(), length) })
        };
        received.push((header.msg_len as usize, source));
    }
    Ok(())
}

/// Sends some of `bytes` (send(2), without blocking and without SIGPIPE).
pub fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let socket = borrow(socket)?;
    Ok(retry_on_intr(|| rustix::net::send(socket, bytes, SEND_FLAGS))?)
}

/// Sends some of `pieces`, in order (sendmsg(2), without blocking and without SIGPIPE).
pub fn send_vectored(socket: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let socket = borrow(socket)?;
    let mut control = rustix::net::SendAncillaryBuffer::default();
    Ok(retry_on_intr(|| rustix::net::sendmsg(socket, pieces, &mut control, SEND_FLAGS))?)
}

/// Sends one datagram, to the connected peer or to `destination` (sendto(2), without blocking).
pub fn send_message(socket: RawFd, bytes: &[u8], destination: Option<&SocketAddrAny>) -> io::Result<usize> {
    let socket = borrow(socket)?;
    Ok(retry_on_intr(|| match destination {
        Some(address) => rustix::net::sendto(socket, bytes, SEND_FLAGS, address),
        None => rustix::net::send(socket, bytes, SEND_FLAGS),
    })?)
}

/// Sends datagrams to their destinations, in order; returns how many left (sendmmsg(2), without blocking). An
/// error is one that the first of them met; another one's shows when it is sent again.
pub fn send_messages(socket: RawFd, datagrams: &[(IoSlice<'_>, &SocketAddrAny)]) -> io::Result<usize> {
    let socket = borrow(socket)?;
    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; MESSAGES_PER_CALL] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<MMsgHdr<'_>> = datagrams
        .iter()
        .zip(&mut controls)
        .map(|((bytes, destination), control)| {
            MMsgHdr::new_with_addr(destination, std::slice::from_ref(bytes), control)
        })
        .collect();
    Ok(retry_on_intr(|| rustix::net::sendmmsg(socket, &mut messages, SEND_FLAGS))?)
}

/// Reads (read(2)); zero is end of file. Blocks if the descriptor does.
pub fn read(descriptor: RawFd, memory: &mut [u8]) -> io::Result<usize> {
    let descriptor = borrow(descriptor)?;
    Ok(retry_on_intr(|| rustix::io::read(descriptor, &mut *memory))?)
}

/// Writes some of `bytes` (write(2)). Blocks if the descriptor does.
pub fn write(descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let descriptor = borrow(descriptor)?;
    Ok(retry_on_intr(|| rustix::io::write(descriptor, bytes))?)
}

/// Writes some of `pieces`, in order (writev(2)). Blocks if the descriptor does.
pub fn write_vectored(descriptor: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let descriptor = borrow(descriptor)?;
    Ok(retry_on_intr(|| rustix::io::writev(descriptor, pieces))?)
}

/// Makes a TCP socket for an address of this family, non-blocking and close-on-exec (socket(2)).
pub fn tcp_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

/// Starts to connect (connect(2)). `EINPROGRESS` says that writability will tell the rest.
pub fn connect(socket: RawFd, address: &SocketAddrAny) -> io::Result<()> {
    // Not retried: an interrupted connect goes on by itself, connect(2).
    Ok(rustix::net::connect(borrow(socket)?, address)?)
}

/// Takes one connection off the queue, non-blocking and close-on-exec (accept4(2)).
pub fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let listener = borrow(listener)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(retry_on_intr(|| rustix::net::accept_with(listener, flags))?)
}

/// Takes the socket's pending error (SO_ERROR, socket(7)): how a connect ended.
pub fn take_socket_error(socket: RawFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::socket_error(borrow(socket)?)??)
}

/// Ends the sending half (shutdown(2)).
pub fn shutdown_write(socket: RawFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(borrow(socket)?, Shutdown::Write)?)
}

/// The address of the peer, where there is one (getpeername(2)).
pub fn peer_name(socket: RawFd) -> io::Result<Option<SocketAddrAny>> {
    Ok(rustix::net::getpeername(borrow(socket)?)?)
}

/// The socket's own address (getsockname(2)).
pub fn local_name(socket: RawFd) -> io::Result<SocketAddrAny> {
    Ok(rustix::net::getsockname(borrow(socket)?)?)
}

/// Makes calls on the descriptor return instead of block (fcntl(2), O_NONBLOCK).
pub fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    let descriptor = borrow(descriptor)?;
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    Ok(rustix::fs::fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?)
}

/// Sends every write at once, or gathers small ones (TCP_NODELAY, tcp(7)).
pub fn set_nodelay(socket: RawFd, enabled: bool) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_nodelay(borrow(socket)?, enabled)?)
}

/// Whether a descriptor is a pipe, a socket or a character device: what pipe transports can serve
/// (fstat(2)).
pub fn is_pipe_like(descriptor: RawFd) -> io::Result<bool> {
    let status = rustix::fs::fstat(borrow(descriptor)?)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    Ok(matches!(kind, FileType::Fifo | FileType::Socket | FileType::CharacterDevice))
}

/// Whether a descriptor is a character device, such as a terminal (fstat(2)).
pub fn is_character_device(descriptor: RawFd) -> io::Result<bool> {
    let status = rustix::fs::fstat(borrow(descriptor)?)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice)
}

/// Whether a call failed for want of descriptors or memory, so that it may succeed later (the errors
/// that accept(2) lists).
pub fn is_out_of_resources(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// Whether an accept failed for the one connection only, so that the next may be accepted at once
/// (accept(2): errors that are pending on the new socket).
pub fn is_lost_connection(error: &io::Error) -> bool {
    let lost = [
        Errno::CONNABORTED,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::INTR,
    ];
    Errno::from_io_error(error).is_some_and(|errno| lost.contains(&errno))
}

/// Whether a connect goes on by itself (EINPROGRESS, EINTR, connect(2)).
pub fn is_connecting(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INPROGRESS | Errno::INTR))
}

/// Whether waiting for a descriptor was refused because it never blocks (EPERM, epoll_ctl(2)).
pub fn never_blocks(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::PERM)
}

/// Whether reading a terminal failed because its other end was closed (EIO).
pub fn is_hang_up(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

/// Nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)). For hosts: the driver itself reads no clock.
pub fn monotonic_now() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    // The clock counts from boot, so neither part is negative.
    now.tv_sec as u64 * NANOSECONDS_PER_SECOND + now.tv_nsec as u64
}

/// Refuses what can never become unready: regular files, directories, devices such as /dev/null; with
/// epoll's own error (EPERM, epoll_ctl(2)), so that every backend answers alike.
pub(crate) fn check_pollable(descriptor: RawFd) -> io::Result<()> {
    let descriptor = borrow(descriptor)?;
    let status = rustix::fs::fstat(descriptor)?;
    match FileType::from_raw_mode(status.st_mode) {
        // Unknown: not of a file system, such as a pidfd.
        FileType::Fifo | FileType::Socket | FileType::Unknown => Ok(()),
        FileType::RegularFile | FileType::Directory => Err(Errno::PERM.into()),
        // Which devices can be polled only epoll itself knows.
        _ => {
            let probe = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let data = epoll::EventData::new_u64(0);
            Ok(epoll::add(&probe, descriptor, data, epoll::EventFlags::empty())?)
        }
    }
}

/// A counter that can be polled (eventfd(2)).
pub(crate) fn event_counter() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// The bytes of an address, as the kernel has them.
pub(crate) fn address_bytes(address: &SocketAddrAny) -> &[u8] {
    // SAFETY: an address's storage is initialised for its length, and lives as long as the address.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.addr_len() as usize) }
}

/// Borrows a descriptor for one call.
pub(crate) fn borrow(descriptor: RawFd) -> io::Result<BorrowedFd<'static>> {
    if descriptor < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: not negative. The borrow ends with the one call it is made for; clause 8 of the
    // contract keeps the descriptor open meanwhile, and a closed one merely answers EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Takes ownership of a descriptor that the kernel has just made for us.
pub(crate) fn own(descriptor: RawFd) -> OwnedFd {
    assert!(descriptor >= 0, "the kernel made descriptor {descriptor}");
    // SAFETY: the caller got it from a completed accept, so it is open and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Whether a call should be made again once the descriptor is ready.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// How many datagrams one call receives or sends: enough to make the call's own cost small, and few enough for
/// the bookkeeping to stand on the stack.
pub const MESSAGES_PER_CALL: usize = 64;
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_failed_accept_is_over_for_want_of_resources_or_for_one_connection() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let error = io::Error::from(errno);
            assert!(is_out_of_resources(&error) && !is_lost_connection(&error), "{error}");
        }
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH] {
            let error = io::Error::from(errno);
            assert!(is_lost_connection(&error) && !is_out_of_resources(&error), "{error}");
        }
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK] {
            let error = io::Error::from(errno);
            assert!(!is_lost_connection(&error) && !is_out_of_resources(&error), "{error}");
        }
    }
}
