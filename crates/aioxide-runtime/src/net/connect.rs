//! Happy eyeballs (RFC 8305): connecting to whichever of a host's addresses answers first.
//!
//! Attempts start in order, each a little after the one before it or as soon as one failed. The first
//! that succeeds wins and the others are dropped, which closes their sockets.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use super::resolve::resolve;
use super::tcp::TcpStream;
use crate::time::{Sleep, sleep};

/// The "Connection Attempt Delay", with the value that RFC 8305, section 5 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to a host by name.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    connect_any(&resolve(host, port).await?).await
}

/// Connects to one of several addresses of the same host, the two families taking turns. If all fail,
/// the error is
/// that of the attempt which failed first.
pub async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    race(interleave(addresses), TcpStream::connect).await
}

/// Lets the families take turns, the first address's family first (RFC 8305, section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first_family =
        |address: &SocketAddr| addresses.first().map(SocketAddr::is_ipv6) == Some(address.is_ipv6());
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_first_family);
    let mut first = first.into_iter();
    let mut second = second.into_iter();
    let mut order = Vec::with_capacity(addresses.len());
    while order.len() < addresses.len() {
        order.extend(first.next());
        order.extend(second.next());
    }
    order
}

/// Starts `attempt` for one candidate after the other until one succeeds.
async fn race<C, F, T>(candidates: Vec<C>, attempt: impl Fn(C) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut candidates = candidates.into_iter();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut first_error = None;
    let mut delay: Pin<&mut Option<Sleep>> = pin!(None);
    poll_fn(move |context| {
        loop {
            let failures = match poll_all(&mut running, context) {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(failures) => failures,
            };
            let is_failure = !failures.is_empty();
            first_error = first_error.take().or_else(|| failures.into_iter().next());
            let is_time = match delay.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(context).is_ready(),
                None => true,
            };
            if !is_failure && !is_time {
                return Poll::Pending;
            }
            match candidates.next() {
                Some(candidate) => {
                    running.push(Box::pin(attempt(candidate)));
                    delay.set((candidates.len() > 0).then(|| sleep(ATTEMPT_DELAY)));
                }
                None if running.is_empty() => {
                    let no_address = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                    return Poll::Ready(Err(first_error.take().unwrap_or_else(no_address)));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await
}

/// Polls what runs: the first success, or the failures, which run no more.
fn poll_all<F, T>(running: &mut Vec<Pin<Box<F>>>, context: &mut Context<'_>) -> Result<T, Vec<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut failures = Vec::new();
    let mut index = 0;
    while let Some(attempt) = running.get_mut(index) {
        match attempt.as_mut().poll(context) {
            Poll::Ready(Ok(value)) => return Ok(value),
            Poll::Ready(Err(error)) => {
                drop(running.remove(index));
                failures.push(error);
            }
            Poll::Pending => index += 1,
        }
    }
    Err(failures)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::io;
    use std::time::Duration;

    use aioxide_driver::Driver;

    use super::{ATTEMPT_DELAY, interleave, race};
    use crate::{Clock, Deadline, Runtime, now, sleep};

    /// Races candidates in simulated time and tells when each was started.
    fn start_times(
        candidates: &[(Option<Duration>, Result<u32, i32>)],
    ) -> (io::Result<u32>, Vec<Duration>, Duration) {
        let (driver, _script) = Driver::scripted().expect("an eventfd can be had");
        let runtime = Runtime::from_driver(driver, Clock::Simulated);
        let started = RefCell::new(Vec::new());
        let since_start = || now().remaining(Deadline(0));
        let attempt = |(duration, outcome): (Option<Duration>, Result<u32, i32>)| {
            started.borrow_mut().push(since_start());
            async move {
                match duration {
                    Some(Duration::ZERO) => {}
                    Some(duration) => sleep(duration).await,
                    None => pending().await,
                }
                outcome.map_err(io::Error::from_raw_os_error)
            }
        };
        let outcome = runtime.block_on(async { (race(candidates.to_vec(), attempt).await, since_start()) });
        let (outcome, end) = outcome.expect("the script has no faults");
        assert_eq!(runtime.statistics().timers, 0);
        (outcome, started.into_inner(), end)
    }

    #[test]
    fn the_next_attempt_starts_after_the_delay_and_the_first_success_wins() {
        let (outcome, started, end) = start_times(&[
            (None, Ok(0)),
            (Some(ATTEMPT_DELAY * 3), Ok(1)),
            (Some(ATTEMPT_DELAY / 2), Ok(2)),
            (Some(Duration::ZERO), Ok(3)),
        ]);
        assert_eq!(outcome.unwrap(), 2);
        assert_eq!(started, [Duration::ZERO, ATTEMPT_DELAY, ATTEMPT_DELAY * 2]);
        assert_eq!(end, ATTEMPT_DELAY * 5 / 2);
    }

    #[test]
    fn a_failure_starts_the_next_attempt_at_once() {
        let short = Duration::from_millis(10);
        let (outcome, started, _) =
            start_times(&[(Some(short), Err(111)), (Some(Duration::ZERO), Err(110)), (Some(short), Ok(2))]);
        assert_eq!(outcome.unwrap(), 2);
        assert_eq!(started, [Duration::ZERO, short, short]);
    }

    #[test]
    fn if_all_fail_the_error_is_the_first_that_came_and_nobody_waits_on() {
        let (outcome, started, end) =
            start_times(&[(Some(ATTEMPT_DELAY * 2), Err(110)), (Some(Duration::ZERO), Err(111))]);
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(111));
        assert_eq!(started, [Duration::ZERO, ATTEMPT_DELAY]);
        assert_eq!(end, ATTEMPT_DELAY * 2);
    }

    #[test]
    fn families_take_turns_and_the_first_addresss_family_begins() {
        let parse = |text: &str| text.parse().unwrap();
        let addresses = ["[::1]:1", "[::1]:2", "[::1]:3", "1.1.1.1:4", "1.1.1.1:5"].map(parse);
        let expected = ["[::1]:1", "1.1.1.1:4", "[::1]:2", "1.1.1.1:5", "[::1]:3"].map(parse);
        assert_eq!(interleave(&addresses), expected);
        assert_eq!(interleave(&[]), []);
    }
}
