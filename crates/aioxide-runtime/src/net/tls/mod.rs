//! TLS for clients, over any stream of the runtime, with rustls. Feature `tls`.
//!
//! A [`TlsConnector`] says whom to trust and who we are; it makes a [`TlsStream`] of a connected
//! [`Stream`](super::Stream). That has the same verbs, and like the plain one lets one task, or two,
//! read and write at the same time.
//!
//! ```no_run
//! use aioxide_runtime::net::connect;
//! use aioxide_runtime::net::tls::TlsConnector;
//!
//! aioxide_runtime::run(async {
//!     let connector = TlsConnector::builder().build()?;
//!     let stream = connector.connect("example.com", connect("example.com", 443).await?).await?;
//!     stream.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n").await?;
//!     let mut answer = Vec::new();
//!     stream.read_to_end(&mut answer).await?;
//!     std::io::Result::Ok(())
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```

mod connector;
mod stream;
mod verification;

pub use connector::{TlsBuilder, TlsConnector};
pub use stream::TlsStream;
