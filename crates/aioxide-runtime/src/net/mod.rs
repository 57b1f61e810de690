//! Sockets, names and connections.
//!
//! A socket here is std's, non-blocking, with futures around it. Each operation first tries the syscall,
//! unless it is known that there is nothing to read, and waits for readiness only if it would block. So
//! nothing is lent to the kernel while a future waits: whatever is dropped half-way has either done its
//! work or nothing at all ([`Stream::read`], [`Stream::write`], `accept`, all of [`UdpSocket`]). Methods
//! take `&self`: share a socket between tasks with `Rc`.
//!
//! ```
//! use aioxide_runtime::net::{TcpListener, connect};
//!
//! aioxide_runtime::run(async {
//!     let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
//!     let client = connect("localhost", listener.local_address()?.port()).await?;
//!     let (server, _) = listener.accept().await?;
//!     client.write_all(b"hello").await?;
//!     drop(client);
//!     let mut received = Vec::new();
//!     server.read_to_end(&mut received).await?;
//!     assert_eq!(received, b"hello");
//!     std::io::Result::Ok(())
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```

mod connect;
mod resolve;
mod socket;
mod stream;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
mod udp;
mod unix;
pub(crate) mod watch;

pub use connect::{connect, connect_any};
pub use resolve::resolve;
pub use stream::Stream;
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
