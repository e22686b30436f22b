use super::super::fault::Kind;
use super::*;
use std::io::{BufRead as _, BufReader};

/// Answers every request with what it was: method, target, and the content's length and beginning.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = Vec::new();
                while let Ok(Some(asked)) = read(&stream, &mut buffer) {
                    let body = serde_json::json!({
                        "method": asked.method, "target": asked.target, "n": asked.body.len(),
                        "auth": asked.login().map(|l| l.1)
                    });
                    let status = if asked.path() == "/none" { 204 } else { 200 };
                    let answered = Answered { status, ..Answered::with(0, &body.to_string()) };
                    let _ = write(&stream, &asked, &answered);
                }
            });
        }
    });
    at
}

fn proxy(kind: Kind) -> (Proxy, Arc<Fault>) {
    let fault = Arc::new(Fault::new(kind));
    (Proxy::start(echo(), fault.clone()).expect("starts"), fault)
}

/// Says something on one connection and reads so many answers.
fn say(port: u16, text: &str, answers: usize) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
    stream.write_all(text.as_bytes()).expect("writes");
    let mut reader = BufReader::new(stream);
    (0..answers)
        .map(|_| {
            let (mut status, mut length) = (0, 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("reads");
                let line = line.trim_end();
                if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                    status = rest.split(' ').next().and_then(|s| s.parse().ok()).expect("a status");
                } else if let Some(rest) = line.strip_prefix("content-length: ") {
                    length = rest.parse().expect("a length");
                } else if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("reads");
            (status, String::from_utf8(body).expect("text"))
        })
        .collect()
}

#[test]
fn requests_go_through_unchanged_and_are_remembered() {
    let (proxy, fault) = proxy(Kind::Nothing);
    let text = "GET /a?x=1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"a\":1,\"b\":2}\
        POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
        DELETE /none HTTP/1.1\r\nHost: h\r\n\r\n";
    let answers = say(proxy.port, text, 4);
    assert!(
        answers[0].1.contains("\"target\":\"/a?x=1\"") && answers[0].1.contains("Bearer t"),
        "{answers:?}"
    );
    assert!(answers[1].1.contains("\"n\":13"), "{answers:?}");
    assert!(answers[2].1.contains("\"n\":5"), "{answers:?}");
    assert_eq!(answers[3], (204, String::new()));
    let seen = proxy.seen();
    assert!(seen.iter().any(|s| s.path == "/a" && s.login && s.query && s.json), "{seen:?}");
    assert!(seen.iter().any(|s| s.path == "/b" && s.sent), "{seen:?}");
    assert_eq!(fault.landed(), 0);
}

#[test]
fn a_fault_lands_and_a_service_that_is_gone_is_a_bad_gateway() {
    let (proxy, fault) = proxy(Kind::LoginRefused);
    let text = "GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: x\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let statuses: Vec<u16> = say(proxy.port, text, 2).into_iter().map(|a| a.0).collect();
    assert_eq!((statuses, fault.landed()), (vec![401, 200], 1));
    let gone = Proxy::start("127.0.0.1:9".to_owned(), Arc::new(Fault::new(Kind::Nothing))).expect("starts");
    assert_eq!(say(gone.port, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 1)[0].0, 502);
}

#[test]
fn broken_requests_end_the_connection() {
    let (proxy, _) = proxy(Kind::Nothing);
    for text in ["nonsense\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("connects");
        stream.write_all(text.as_bytes()).expect("writes");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{text:?}");
    }
}
