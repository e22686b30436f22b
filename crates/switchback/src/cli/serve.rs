//! One page of text for whoever asks by HTTP: the numbers, for a Prometheus that fetches them.
//!
//! It must never do anything that a request says but print that page, nor wait for long for a client that says nothing.

use super::Trouble;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use switchback_engine::engine::Cancel;

/// A client that takes longer is left.
const PATIENCE: Duration = Duration::from_secs(5);
/// A request that is longer is refused.
const LONGEST: u64 = 8192;
/// How often it is asked whether to end.
const ASK: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` with the page as it is then, one client after the other, until it is to end.
pub fn serve(
    at: SocketAddr,
    cancel: &Cancel,
    ready: impl FnOnce(SocketAddr) -> Result<(), Trouble>,
    page: impl Fn() -> Result<String, Trouble>,
) -> Result<(), Trouble> {
    let listener = TcpListener::bind(at).map_err(|e| {
        Trouble::refused(format!("cannot listen on {at}: {e}"), "is another one running? try another port")
    })?;
    listener.set_nonblocking(true)?;
    ready(listener.local_addr()?)?;
    while !cancel.requested() {
        match listener.accept() {
            // What goes wrong with one client is that client's.
            Ok((client, _)) => drop(answer(&client, &page)),
            // Nobody asks, or a client was gone before it was answered.
            Err(_) => std::thread::sleep(ASK),
        }
    }
    Ok(())
}

fn answer(client: &TcpStream, page: &impl Fn() -> Result<String, Trouble>) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.take(LONGEST)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // Closing with something unread would take the answer away from the client.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, kind, body) = match first.split(' ').collect::<Vec<_>>().as_slice() {
        ["GET", path, ..] if path.split('?').next() == Some("/metrics") => match page() {
            Ok(text) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text),
            Err(trouble) => ("503 Service Unavailable", "text/plain", format!("{}\n", trouble.message)),
        },
        ["GET", ..] => ("404 Not Found", "text/plain", "the numbers are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut client = client;
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())
}
