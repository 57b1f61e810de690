//! What a reply becomes, which the decoder leaves to others.

/// Makes what a reply becomes: a Rust value, an object of another language.
///
/// The decoder calls one method for each part of a reply as soon as that part is complete, inner parts before
/// the aggregates that hold them. Bytes are borrowed from the input and copied here, once.
///
/// ```
/// use aioxide_redis::proto::{Decoded, Decoder, Limits, ReplyBuilder};
///
/// /// How many leaves a reply has.
/// struct Leaves;
///
/// impl ReplyBuilder for Leaves {
///     type Reply = usize;
///     fn null(&mut self) -> usize { 1 }
///     fn simple_string(&mut self, _: &[u8]) -> usize { 1 }
///     fn error(&mut self, _: &[u8]) -> usize { 1 }
///     fn integer(&mut self, _: i64) -> usize { 1 }
///     fn bulk_string(&mut self, _: &[u8]) -> usize { 1 }
///     fn boolean(&mut self, _: bool) -> usize { 1 }
///     fn double(&mut self, _: f64) -> usize { 1 }
///     fn big_number(&mut self, _: &[u8]) -> usize { 1 }
///     fn verbatim_string(&mut self, _: [u8; 3], _: &[u8]) -> usize { 1 }
///     fn array(&mut self, items: Vec<usize>) -> usize { items.iter().sum() }
///     fn set(&mut self, items: Vec<usize>) -> usize { items.iter().sum() }
///     fn map(&mut self, pairs: Vec<(usize, usize)>) -> usize { pairs.iter().map(|(key, value)| key + value).sum() }
/// }
///
/// let mut input: &[u8] = b"*2\r\n:1\r\n%1\r\n+key\r\n#t\r\n";
/// let leaves = Decoder::new(Limits::default()).decode(&mut input, &mut Leaves)?;
/// assert_eq!(leaves, Some(Decoded::Reply(3)));
/// # Ok::<(), aioxide_redis::proto::ProtocolError>(())
/// ```
pub trait ReplyBuilder {
    /// What replies and their parts become.
    type Reply;

    /// Nothing: `_` of RESP3, the negative lengths of RESP2.
    fn null(&mut self) -> Self::Reply;

    /// A status such as `OK`.
    fn simple_string(&mut self, text: &[u8]) -> Self::Reply;

    /// A simple or a bulk error, the text without the marker.
    fn error(&mut self, text: &[u8]) -> Self::Reply;

    /// An integer.
    fn integer(&mut self, value: i64) -> Self::Reply;

    /// Bytes, whether they came at once or streamed.
    fn bulk_string(&mut self, bytes: &[u8]) -> Self::Reply;

    /// True or false.
    fn boolean(&mut self, value: bool) -> Self::Reply;

    /// A floating-point number, infinities and NaN among them.
    fn double(&mut self, value: f64) -> Self::Reply;

    /// An integer of any size: digits in ASCII, perhaps behind a sign.
    fn big_number(&mut self, digits: &[u8]) -> Self::Reply;

    /// A text that says what it is: `txt`, `mkd`.
    fn verbatim_string(&mut self, format: [u8; 3], text: &[u8]) -> Self::Reply;

    /// An array; also what a push carries.
    fn array(&mut self, items: Vec<Self::Reply>) -> Self::Reply;

    /// A set as it was sent: the order is the server's, and nobody has looked for duplicates.
    fn set(&mut self, items: Vec<Self::Reply>) -> Self::Reply;

    /// A map as it was sent: the order is the server's, and nobody has looked for duplicates.
    fn map(&mut self, pairs: Vec<(Self::Reply, Self::Reply)>) -> Self::Reply;

    /// A reply, or a part of one, with what the server says about it. By default only the reply is kept.
    fn attributed(&mut self, attributes: Vec<(Self::Reply, Self::Reply)>, reply: Self::Reply) -> Self::Reply {
        drop(attributes);
        reply
    }
}
