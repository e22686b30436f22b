//! Small servers that remember what they are sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Everything that a small server was sent.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// What it was sent, in that order.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("unpoisoned").clone()
    }
    /// Answers on a port of this machine, in the background.
    pub fn serve(&self, answer: impl Fn(&mut BufReader<TcpStream>) -> String + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let port = listener.local_addr().expect("bound").port();
        let heard = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
                let text = answer(&mut BufReader::new(stream));
                heard.0.lock().expect("unpoisoned").push(text);
            }
        });
        port
    }
}

/// Takes a message by HTTP.
pub fn http(reader: &mut BufReader<TcpStream>) -> String {
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
        let lower = line.to_ascii_lowercase();
        length =
            lower.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().expect("a number"));
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("reads");
    reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").expect("answers");
    String::from_utf8(body).expect("text")
}
