//! Three fetches at once from a server that takes its time: together they take as long as one.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use aioxide_runtime::net::{TcpListener, TcpStream};
use aioxide_runtime::{join_all, now, sleep, spawn};

async fn fetch(address: SocketAddr, page: &str) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).lines().last().unwrap_or_default().to_owned())
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await?;
    sleep(Duration::from_millis(50)).await;
    let request = String::from_utf8_lossy(&request);
    let page = request.split(' ').nth(1).unwrap_or("nothing");
    stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\nthis is {page}").as_bytes()).await
}

pub(crate) fn main() -> io::Result<()> {
    aioxide_runtime::run(async {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_address()?;
        let server = spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(spawn(answer(stream)));
            }
        });

        let start = now();
        for page in join_all(["/one", "/two", "/three"].map(|page| fetch(address, page))).await {
            println!("{}", page?);
        }
        println!("in {} ms", now().remaining(start).as_millis());
        server.abort();
        Ok(())
    })?
}
