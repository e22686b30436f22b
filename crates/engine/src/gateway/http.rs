//! HTTP/1, as far as a sink needs it: the head of a request, and answers.

use std::io::{self, Read, Write};

/// The longest head that is read.
pub const LONGEST_HEAD: usize = 32 * 1024;
/// The most headers.
const HEADERS: usize = 128;
/// Methods that begin a request; what begins otherwise is no HTTP.
const METHODS: [&str; 12] = [
    "GET", "POST", "PUT", "HEAD", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PROPFIND", "REPORT",
    "MKCOL",
];

/// Whether bytes begin a request, as far as they go; `None` while that cannot be told.
pub fn looks_like(bytes: &[u8]) -> Option<bool> {
    let fits = |m: &&str| {
        let with_space = [m.as_bytes(), b" "].concat();
        let length = bytes.len().min(with_space.len());
        bytes.get(..length) == with_space.get(..length)
    };
    let candidates = METHODS.iter().filter(|m| fits(m)).count();
    match (candidates, METHODS.iter().any(|m| bytes.len() > m.len() && fits(m))) {
        (0, _) => Some(false),
        (_, true) => Some(true),
        (_, false) => None,
    }
}

/// The head of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Method.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The host that it is for, without a port; empty if it names none.
    pub host: String,
    /// The port in its `Host`.
    pub port: Option<u16>,
    /// Length of its content, if it is said.
    pub content_length: Option<u64>,
    /// Its content comes in chunks.
    pub chunked: bool,
    /// It waits for a word before it sends its content.
    pub expects: bool,
    /// It wants another protocol (WebSocket).
    pub upgrade: bool,
    /// Bytes of the head.
    pub length: usize,
}

/// Reads a head; `None` if it is not complete, an error if it is none.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(()),
    };
    let mut found = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        length,
        ..Head::default()
    };
    let mut authority = String::new();
    for header in request.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        match header.name.to_ascii_lowercase().as_str() {
            "host" => authority = value.to_owned(),
            "content-length" => found.content_length = Some(value.parse().map_err(drop)?),
            "transfer-encoding" => found.chunked = value.to_ascii_lowercase().contains("chunked"),
            "expect" => found.expects = value.eq_ignore_ascii_case("100-continue"),
            "upgrade" => found.upgrade = true,
            _ => {}
        }
    }
    // To a proxy the target is a whole address, or (CONNECT) a host and a port.
    if found.method == "CONNECT" {
        authority = found.target.clone();
    } else if let Some((_, rest)) = found.target.split_once("://") {
        let (named, path) = rest.split_once('/').unwrap_or((rest, ""));
        authority = named.rsplit('@').next().unwrap_or_default().to_owned();
        found.target = format!("/{path}");
    }
    (found.host, found.port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            (host.to_ascii_lowercase(), port.parse().ok())
        }
        _ => (authority.to_ascii_lowercase(), None),
    };
    Ok(Some(found))
}

/// Reads until a head is complete. Bytes behind it are left in the buffer.
pub fn read_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Head> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no head of a request");
    let mut chunk = [0; 4096];
    loop {
        if let Some(head) = head(buffer).map_err(|()| bad())? {
            return Ok(head);
        }
        let got = stream.read(&mut chunk)?;
        if got == 0 {
            return Err(bad());
        }
        buffer.extend_from_slice(chunk.get(..got).unwrap_or_default());
    }
}

/// The head again, asking for one answer only: nothing may follow to another host on the same connection.
pub fn closing(head: &Head, bytes: &[u8]) -> Vec<u8> {
    if head.upgrade {
        return bytes.get(..head.length).unwrap_or_default().to_vec();
    }
    let text = bytes.get(..head.length).unwrap_or_default();
    let mut out = Vec::with_capacity(text.len() + 24);
    for (index, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
        let name = line.split(|b| *b == b':').next().unwrap_or_default().to_ascii_lowercase();
        if index == 0 {
            out.extend_from_slice(line);
            out.extend_from_slice(b"Connection: close\r\n");
        } else if !matches!(name.as_slice(), b"connection" | b"keep-alive" | b"proxy-connection") {
            out.extend_from_slice(line);
        }
    }
    out
}

/// Writes an answer and says that the connection ends with it.
pub fn respond(
    stream: &mut impl Write,
    head: &Head,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut out = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    let bare = matches!(status, 204 | 304);
    if !bare {
        out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    out.push_str("Connection: close\r\n\r\n");
    let mut out = out.into_bytes();
    if head.method != "HEAD" && !bare {
        out.extend_from_slice(body);
    }
    stream.write_all(&out)?;
    stream.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_head_says_where_a_request_goes() {
        let text = b"POST /hook?token=x HTTP/1.1\r\nHost: API.example.com:8080\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\nrest";
        let found = head(text).expect("a head").expect("complete");
        assert_eq!((found.method.as_str(), found.target.as_str()), ("POST", "/hook?token=x"));
        assert_eq!((found.host.as_str(), found.port), ("api.example.com", Some(8080)));
        assert_eq!((found.content_length, found.expects, found.length), (Some(12), true, text.len() - 4));
        let proxied = head(b"GET http://user:pw@x.org:81/p HTTP/1.1\r\nHost: y\r\n\r\n")
            .expect("a head")
            .expect("whole");
        assert_eq!((proxied.host.as_str(), proxied.port, proxied.target.as_str()), ("x.org", Some(81), "/p"));
        let tunnel = head(b"CONNECT z.org:443 HTTP/1.1\r\n\r\n").expect("a head").expect("whole");
        assert_eq!((tunnel.host.as_str(), tunnel.port), ("z.org", Some(443)));
    }

    #[test]
    fn requests_are_told_from_other_protocols_as_soon_as_possible() {
        assert_eq!(looks_like(b"GET /"), Some(true));
        assert_eq!(looks_like(b"P"), None);
        assert_eq!(looks_like(b"PUS"), Some(false));
        assert_eq!(looks_like(b"SSH-2.0"), Some(false));
        assert_eq!(looks_like(b""), None);
    }

    #[test]
    fn hostile_heads_are_refused_and_bounded() {
        assert!(head(&[b'A'; LONGEST_HEAD + 1]).is_err());
        assert!(head(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").is_err());
        assert!(head(b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n").is_err());
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert!(head(many.as_bytes()).is_err());
        let mut endless = io::repeat(b'a');
        assert!(read_head(&mut endless, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_is_let_out_is_one_request_only() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nX: y\r\n\r\nnext";
        let found = head(text).expect("a head").expect("complete");
        let out = String::from_utf8(closing(&found, text)).expect("text");
        assert_eq!(out, "GET / HTTP/1.1\r\nConnection: close\r\nHost: a\r\nX: y\r\n\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (head(&bytes), looks_like(&bytes));
            let mut request = b"GET / HTTP/1.1\r\n".to_vec();
            request.extend(&bytes);
            if let Ok(Some(found)) = head(&request) {
                let _ = closing(&found, &request);
            }
        }
    }
}
