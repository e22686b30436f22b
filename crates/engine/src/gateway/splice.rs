//! Two connections joined: what one says the other hears, until both are done.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A side that says nothing for so long is given up; database connections of a service may rest for an hour.
const IDLE: Duration = Duration::from_secs(2 * 3600);

/// Joins two connections. `first` is said to `there` before anything else. Returns the bytes that went there.
pub fn join(here: &TcpStream, there: &TcpStream, first: &[u8]) -> io::Result<u64> {
    use std::io::Write as _;
    for side in [here, there] {
        side.set_read_timeout(Some(IDLE))?;
        side.set_write_timeout(Some(IDLE))?;
        side.set_nodelay(true)?;
    }
    let mut out = there;
    out.write_all(first)?;
    let sent = std::thread::scope(|scope| {
        let back = scope.spawn(|| pass(there, here));
        let sent = pass(here, there);
        let _ = back.join();
        sent
    });
    Ok(first.len() as u64 + sent)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) -> u64 {
    let copied = io::copy(&mut from, &mut to);
    // The end of one way is told to the other; an error ends both.
    let _ = to.shutdown(Shutdown::Write);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
    copied.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        (one, listener.accept().expect("a connection").0)
    }

    #[test]
    fn both_ways_go_on_until_both_are_done() {
        let ((mut client, here), (there, mut server)) = (pair(), pair());
        let joined = std::thread::spawn(move || join(&here, &there, b"first,"));
        client.write_all(b"then").expect("writes");
        client.shutdown(Shutdown::Write).expect("ends");
        let mut heard = String::new();
        server.read_to_string(&mut heard).expect("reads");
        assert_eq!(heard, "first,then");
        server.write_all(b"answer").expect("writes");
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("reads");
        assert_eq!((answer.as_str(), joined.join().expect("ends").expect("bytes")), ("answer", 10));
    }
}
