//! Descriptors and buffers are back where they were. Alone in its process, because it counts them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use aioxide_driver::{Choice, Options};
use aioxide_runtime::net::{TcpListener, TcpStream};
use aioxide_runtime::{Runtime, join_all, sleep, spawn, timeout};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs is mounted").count()
}

/// Connections that end in every way: answered, aborted while reading, dropped in the backlog.
async fn traffic() -> io::Result<()> {
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listener = TcpListener::bind(address)?;
    let address = listener.local_address()?;
    let server = spawn(async move {
        loop {
            let (stream, _) = listener.accept().await?;
            drop(spawn(async move {
                let mut byte = [0];
                stream.read_exact(&mut byte).await?;
                stream.write_all(&byte).await
            }));
        }
        #[expect(unreachable_code, reason = "it names the block's type")]
        io::Result::Ok(())
    });
    for _ in 0..20 {
        let answered = join_all((0..20).map(|number| async move {
            let stream = TcpStream::connect(address).await?;
            if number % 4 == 0 {
                let unanswered = timeout(Duration::ZERO, stream.read(&mut [0])).await;
                return io::Result::Ok(usize::from(unanswered.is_ok()));
            }
            stream.write_all(b"x").await?;
            stream.read(&mut [0]).await
        }));
        assert_eq!(answered.await.into_iter().sum::<io::Result<usize>>()?, 15);
    }
    let silent = TcpStream::connect(address).await?;
    sleep(Duration::from_millis(1)).await;
    server.abort();
    server.await.expect_err("it was aborted");
    drop(silent);
    // Nobody accepts this one's kind any more.
    TcpStream::connect(address).await.expect_err("the listener is closed");
    Ok(())
}

#[test]
fn connections_leave_no_descriptor_and_no_operation_behind() {
    for choice in [Choice::Epoll, Choice::Auto] {
        let at_first = open_descriptors();
        let runtime = Runtime::new(&Options::new(choice)).expect("one driver at least can be opened");
        let with_runtime = open_descriptors();
        for _ in 0..3 {
            runtime.block_on(traffic()).expect("the driver waits").expect("loopback works");
        }
        runtime.shutdown();
        assert_eq!(open_descriptors(), with_runtime);
        assert_eq!(runtime.statistics().tasks, 0);
        drop(runtime);
        assert_eq!(open_descriptors(), at_first);
    }
}
