//! An echo server, and a client that hangs up when it has its answer.

use std::io;

use aioxide_runtime::net::{TcpListener, TcpStream};
use aioxide_runtime::spawn;

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        drop(spawn(echo(stream)));
    }
}

pub(crate) fn main() -> io::Result<()> {
    aioxide_runtime::run(async {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_address()?;
        let server = spawn(serve(listener));

        let client = TcpStream::connect(address).await?;
        client.write_all(b"hello").await?;
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await?;
        println!("{}", String::from_utf8_lossy(&answer));
        server.abort();
        Ok(())
    })?
}
