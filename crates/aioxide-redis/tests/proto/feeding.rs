//! A connection's read buffer without the connection.

use aioxide_redis::proto::{Decoded, Decoder, Limits, ProtocolError, ReplyBuilder};

/// All that could be decoded, and how it ended.
#[derive(Debug, PartialEq)]
pub struct Outcome<R> {
    pub decoded: Vec<Decoded<R>>,
    /// The error, or how many bytes were left.
    pub end: Result<usize, ProtocolError>,
}

/// Feeds pieces to a decoder as a connection does: what is left is given again, with the next piece behind it.
///
/// # Panics
/// If the decoder gets further with fewer bytes than it wants, or wants no more than it has.
pub fn feed<'piece, B: ReplyBuilder>(
    pieces: impl IntoIterator<Item = &'piece [u8]>,
    limits: Limits,
    builder: &mut B,
) -> Outcome<B::Reply> {
    let mut decoder = Decoder::new(limits);
    let mut buffer: Vec<u8> = Vec::new();
    let mut decoded = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let mut input = &buffer[..];
            let wanted = decoder.wanted();
            let result = decoder.decode(&mut input, builder);
            let consumed = buffer.len() - input.len();
            if buffer.len() < wanted {
                assert_eq!(consumed, 0, "{wanted} bytes were wanted, {} were enough", buffer.len());
                assert!(
                    matches!(result, Ok(None)),
                    "{wanted} bytes were wanted, {} were enough",
                    buffer.len()
                );
            }
            buffer.drain(..consumed);
            match result {
                Ok(Some(reply)) => decoded.push(reply),
                Ok(None) => {
                    assert!(decoder.wanted() > buffer.len(), "nothing more is wanted, and there is no reply");
                    break;
                }
                Err(error) => return Outcome { decoded, end: Err(error) },
            }
        }
    }
    Outcome { decoded, end: Ok(buffer.len()) }
}
