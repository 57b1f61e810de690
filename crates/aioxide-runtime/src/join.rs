//! Several futures at once, inside of one task.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Runs futures concurrently until all are done, and gives their outputs in order. They may borrow,
/// unlike tasks; each wake polls all that are not done, so it is for a handful, not for thousands.
///
/// ```
/// use aioxide_runtime::{join_all, yield_now};
///
/// let squares = aioxide_runtime::run(join_all((1..=3).map(|number| async move {
///     yield_now().await;
///     number * number
/// })))?;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut branches: Vec<_> = futures.into_iter().map(|future| Branch::Running(Box::pin(future))).collect();
    poll_fn(|context| {
        let mut is_done = true;
        for branch in &mut branches {
            if let Branch::Running(future) = branch {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *branch = Branch::Done(output),
                    Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let output = |branch| match branch {
        Branch::Done(output) => output,
        Branch::Running(_) => unreachable!("a branch that runs after all were done"),
    };
    branches.into_iter().map(output).collect()
}

enum Branch<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}
