use super::*;
use std::io::Write;
use std::net::TcpListener;
use std::thread;

/// A server that gives every connection to a function, after reading the request's head.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let serve = std::sync::Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = std::sync::Arc::clone(&serve);
            thread::spawn(move || {
                let mut head = [0; 4096];
                let mut stream = stream;
                let _ = stream.read(&mut head);
                serve(stream);
            });
        }
    });
    address
}

fn get(address: &str, timeout_ms: u64, redirects: Redirects) -> Result<Response, HttpError> {
    let client = HttpClient::new(Limits::default(), []);
    let began = Instant::now();
    let result = client.send(&HttpRequest {
        method: "GET".into(),
        url: format!("http://{address}/"),
        headers: Vec::new(),
        body: None,
        redirects,
        timeout: Duration::from_millis(timeout_ms),
    });
    let limit = Duration::from_millis(timeout_ms + 500);
    assert!(began.elapsed() < limit, "took {:?}, limit {timeout_ms} ms: {result:?}", began.elapsed());
    result
}

fn say(text: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync {
    move |mut s| drop(s.write_all(text))
}

#[test]
fn an_endless_body_is_cut_off() {
    let address = server(|mut s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while s.write_all(&[b'x'; 65536]).is_ok() {}
    });
    assert_eq!(get(&address, 20_000, Redirects::Return).err(), Some(HttpError::BodyTooLarge(8 << 20)));
}

/// A gzip stream of a GiB of zeros, made without a compressor: one deflate block that repeats
/// "copy 258 bytes from distance 1" with fixed Huffman codes (13 bits each).
fn gzip_bomb() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    bits.code(0b0011_0000, 8);
    for _ in 0..(1u64 << 30) / 258 {
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
    }
    bits.code(0, 7);
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend(bits.bytes);
    out
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for i in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> i & 1 == 1) << (self.used % 8);
            }
            self.used += 1;
        }
    }
    /// Huffman codes are written from their highest bit.
    fn code(&mut self, value: u32, count: u32) {
        for i in (0..count).rev() {
            self.push(value >> i & 1, 1);
        }
    }
}

#[test]
fn a_gzip_bomb_is_cut_off_after_decompression() {
    let bomb = gzip_bomb();
    let address = server(move |mut s| {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
        let _ = s.write_all(head.as_bytes());
        let _ = s.write_all(&bomb);
    });
    assert_eq!(get(&address, 20_000, Redirects::Return).err(), Some(HttpError::BodyTooLarge(8 << 20)));
}

#[test]
fn a_slow_drip_ends_at_the_deadline() {
    let body = server(|mut s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        while s.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(matches!(get(&body, 300, Redirects::Return), Err(HttpError::Timeout { .. })));
    let head = server(|mut s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        while s.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(matches!(get(&head, 300, Redirects::Return), Err(HttpError::Timeout { .. })));
    let silent = server(|s| {
        thread::sleep(Duration::from_secs(5));
        drop(s);
    });
    let error = get(&silent, 300, Redirects::Return).expect_err("silent");
    assert_eq!(error.to_string(), format!("no complete response from {silent} within 300 ms"));
}

#[test]
fn huge_headers_are_refused() {
    let address = server(|mut s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\n");
        for i in 0.. {
            if s.write_all(format!("x-{i}: {}\r\n", "y".repeat(1000)).as_bytes()).is_err() {
                return;
            }
        }
    });
    let error = get(&address, 5000, Redirects::Return).expect_err("too large");
    assert_eq!(error, HttpError::HeadersTooLarge(32 << 10));
}

#[test]
fn large_headers_within_the_limit_and_large_bodies_are_read() {
    let address = server(|mut s| {
        let _ = s.write_all(format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(30_000)).as_bytes());
        let _ = s.write_all(b"content-length: 8388608\r\n\r\n");
        let _ = s.write_all(&vec![b'z'; 8 << 20]);
    });
    let response = get(&address, 5000, Redirects::Return).expect("response");
    assert_eq!(response.header("x").next().map(str::len), Some(30_000));
    assert_eq!(response.body.len(), 8 << 20);
}

#[test]
fn broken_responses_are_failures() {
    for text in [
        &b""[..],
        b"\xff\xfe\x00garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
    ] {
        let address = server(move |mut s| drop(s.write_all(text)));
        let error = get(&address, 3000, Redirects::Return).expect_err("broken");
        assert!(matches!(error, HttpError::Broken { .. }), "{text:?}: {error:?}");
    }
    // Unread input makes closing a reset.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    thread::spawn(move || listener.accept().map(drop));
    let error = get(&address, 3000, Redirects::Return).expect_err("reset");
    assert!(matches!(error, HttpError::Broken { .. }), "{error:?}");
}

#[test]
fn invalid_utf8_is_a_response_like_any_other() {
    let address = server(say(b"HTTP/1.1 200 OK\r\nx: \xff\r\ncontent-length: 2\r\n\r\n\xff\xfe"));
    let response = get(&address, 3000, Redirects::Return).expect("response");
    assert_eq!((response.body.as_slice(), &*response.text()), (&b"\xff\xfe"[..], "\u{fffd}\u{fffd}"));
}

#[test]
fn redirects_end_and_stay_inside() {
    let loops = server(say(b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(get(&loops, 5000, Redirects::Follow).err(), Some(HttpError::TooManyRedirects(10)));
    assert_eq!(get(&loops, 5000, Redirects::Return).expect("response").status, 302);
    let leaves = server(say(
        b"HTTP/1.1 301 Moved\r\nlocation: https://production.example/\r\ncontent-length: 0\r\n\r\n",
    ));
    assert_eq!(
        get(&leaves, 5000, Redirects::Follow).err(),
        Some(HttpError::LeftEnvironment("production.example:443".into()))
    );
}

#[test]
fn locations_are_resolved() {
    let base: Uri = "http://h:1/a/b?c".parse().expect("url");
    for (target, expected) in [
        ("/x?y#z", "http://h:1/x?y"),
        ("x", "http://h:1/a/x"),
        ("../x", "http://h:1/x"),
        ("?q", "http://h:1/a/b?q"),
        ("//o/x", "http://o/x"),
        ("https://o:2/x y", "https://o:2/x%20y"),
    ] {
        assert_eq!(resolve(&base, target).map(|u| u.to_string()).as_deref(), Some(expected), "{target}");
    }
    assert!(resolve(&base, "http://").is_none());
}

#[test]
fn nothing_listening_is_refused() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").to_string();
    assert_eq!(get(&closed, 3000, Redirects::Return).err(), Some(HttpError::Refused(closed.clone())));
    let limit = Duration::from_secs(1);
    let refused: ProbeError = HttpError::Refused(closed.clone()).into();
    assert_eq!(probe_tcp(&closed, limit), Err(refused.clone()));
    assert_eq!(probe_http(&format!("http://{closed}/"), &(200..=299), limit), Err(refused));
    let error = probe_http("http://no-such-host.invalid/", &(200..=299), Duration::from_secs(5));
    assert!(
        matches!(
            error,
            Err(ProbeError::NoResponse(HttpError::Unreachable { .. } | HttpError::Timeout { .. }))
        ),
        "{error:?}"
    );
    assert!(matches!(
        probe_http("nonsense", &(200..=299), limit),
        Err(ProbeError::NoResponse(HttpError::Unusable(_)))
    ));
}

#[test]
fn probes_see_the_status() {
    let address = server(say(b"HTTP/1.1 503 No\r\ncontent-length: 9999999\r\n\r\n"));
    let url = format!("http://{address}/health");
    assert_eq!(probe_http(&url, &(500..=599), Duration::from_secs(1)), Ok(503));
    assert_eq!(
        probe_http(&url, &(200..=399), Duration::from_secs(1)).map_err(|e| e.to_string()),
        Err("status 503, expected 200 to 399".into())
    );
    assert_eq!(probe_tcp(&address, Duration::from_secs(1)), Ok(()));
    let began = Instant::now();
    for _ in 0..50 {
        let _ = probe_http(&url, &(500..=599), Duration::from_secs(1));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "50 probes took {:?}", began.elapsed());
}
