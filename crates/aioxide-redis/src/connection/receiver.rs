//! The one place that is generic: what a reply becomes, and who gets it.

use std::pin::Pin;
use std::rc::Rc;

use crate::Error;
use crate::config::Address;
use crate::proto::ReplyBuilder;

/// Makes replies and hands them to those who wait.
///
/// Its methods are called while the connection is not borrowed: they may send more commands.
pub trait Receiver: ReplyBuilder + 'static {
    /// Who waits for the replies of a unit of commands. Dropping one that got less than it waits for is the end of its
    /// connection's runtime.
    type Slot: 'static;

    /// The bytes that come now are for `slot`; `None` while nobody waits, when only a push is legal.
    fn begin(&mut self, slot: Option<&Self::Slot>);

    /// The next reply for `slot`.
    fn deliver(&mut self, slot: &mut Self::Slot, reply: Self::Reply);

    /// There will be no (more) replies for `slot`.
    fn fail(&mut self, slot: Self::Slot, error: Error);

    /// A message that nobody asked for: of a subscription, or an invalidation.
    fn push(&mut self, message: Self::Reply);

    /// Whether nothing more should be read before [`Connection::resume_reading`](super::Connection::resume_reading):
    /// then the server, and who sends to it, must wait.
    fn is_full(&self) -> bool {
        false
    }

    /// The connection is lost, or could not be made.
    fn disconnected(&mut self, error: &Error) {
        let _ = error;
    }
}

/// What a server of a replicated group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes writes.
    Master,
    /// It follows a master, and may be read from.
    Replica,
}

/// A server that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where it listens.
    pub address: Address,
    /// What it has to be. One that is something else by now is not used, and looked for again.
    pub role: Option<Role>,
}

/// Where a connection finds its server: asked before every attempt. How long it takes is its own business; the time that
/// an attempt to connect may take begins afterwards.
pub trait Locate {
    /// The server to connect to now.
    fn locate(&self) -> Pin<Box<dyn Future<Output = Result<Located, Error>> + '_>>;
}

/// A shared [`Locate`].
pub type Locator = Rc<dyn Locate>;
