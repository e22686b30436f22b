//! A proxy in front of the Docker engine.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A proxy in front of the engine's socket that refuses some requests, and can be shut off.
pub struct Proxy {
    _dir: tempfile::TempDir,
    /// For `DOCKER_HOST`.
    pub address: String,
    /// Whether it answers nobody.
    pub off: &'static AtomicBool,
}

/// Starts one that refuses requests by their first line.
pub fn proxy(refuses: fn(&str) -> bool) -> Proxy {
    let dir = tempfile::tempdir().expect("works");
    let socket: PathBuf = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).expect("works");
    let off: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || serve(client, refuses, off));
        }
    });
    Proxy { address: format!("unix://{}", socket.display()), _dir: dir, off }
}

fn serve(mut client: UnixStream, refuses: fn(&str) -> bool, off: &'static AtomicBool) {
    let mut head = vec![0; 64 * 1024];
    let Ok(n) = client.read(&mut head) else { return };
    let line = String::from_utf8_lossy(&head[..n]).lines().next().unwrap_or_default().to_owned();
    if refuses(&line) {
        let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nforbidden");
        return;
    }
    let mut engine = UnixStream::connect("/var/run/docker.sock").expect("works");
    engine.write_all(&head[..n]).expect("works");
    let (mut up, mut down) = (client.try_clone().expect("works"), engine.try_clone().expect("works"));
    std::thread::spawn(move || {
        let _ = io::copy(&mut up, &mut down);
        let _ = down.shutdown(std::net::Shutdown::Write);
    });
    engine.set_read_timeout(Some(Duration::from_millis(20))).expect("works");
    let mut buffer = [0; 16 * 1024];
    while !off.load(Ordering::Relaxed) {
        match engine.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if client.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = engine.shutdown(std::net::Shutdown::Both);
}
