//! The sink on sockets of this host.

use super::super::config::tests::canned;
use super::super::config::{Authority, Rules};
use super::super::records::{Names, Writer, read_back};
use super::super::tls::tests::client_hello;
use super::*;
use crate::gateway::{Direct, Resolver};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use switchback_core::config::{Destination, EgressDefault};

#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stand {
    sink: Arc<Sink>,
    out: Out,
    writer: Writer,
}

impl Stand {
    fn new(rules: Rules) -> Self {
        let out = Out::default();
        let (recorder, writer) = Recorder::new(out.clone(), Names::new(None, "p"));
        let nobody = Resolver::new("127.0.0.1:9".parse().expect("an address"), Duration::from_millis(50));
        let direct = Box::new(Direct { resolver: nobody, own: Vec::new() });
        let sink = Sink::new(rules, recorder, direct, Vec::new()).expect("a sink");
        Self { sink: Arc::new(sink), out, writer }
    }

    /// Says something to a port and hears the answer.
    fn say(&self, port: u16, text: &[u8]) -> String {
        let mut client = self.connect(port);
        client.write_all(text).expect("writes");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn connect(&self, port: u16) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        self.sink.take(listener.accept().expect("a connection").0, port);
        client
    }

    /// The records, when everything has been served.
    fn records(self) -> Vec<Sent> {
        let until = Instant::now() + Duration::from_secs(10);
        while self.sink.active.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.writer.finish();
        let text = String::from_utf8(self.out.0.lock().expect("a lock").clone()).expect("text");
        read_back(&text).1
    }
}

#[test]
fn requests_are_taken_and_recorded_without_what_could_be_a_secret() {
    let stand = Stand::new(Rules::default());
    let post = stand.say(
        80,
        b"POST /hook?token=s3cret HTTP/1.1\r\nHost: hooks.example.com\r\nAuthorization: Bearer s3cret\r\nContent-Length: 6\r\n\r\ns3cret",
    );
    assert!(post.starts_with("HTTP/1.1 202"), "{post}");
    let get = stand.say(8080, b"GET / HTTP/1.1\r\nHost: a.example.com:8080\r\n\r\n");
    assert!(get.starts_with("HTTP/1.1 502"), "{get}");
    let chunked = stand
        .say(80, b"PUT /c HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    assert!(chunked.starts_with("HTTP/1.1 202"), "{chunked}");
    let records = stand.records();
    let text = serde_json::to_string(&records).expect("JSON");
    assert!(!text.contains("s3cret"), "{text}");
    let first = &records[0];
    assert_eq!((first.host.as_str(), first.port, first.kind), ("hooks.example.com", 80, Kind::Http));
    assert_eq!(first.path.as_deref(), Some("/hook?token=***"));
    assert_eq!((records[1].host.as_str(), records[1].port), ("a.example.com", 8080));
    assert_eq!(records.len(), 3);
}

#[test]
fn connections_over_tls_are_recorded_by_name_and_closed() {
    let stand = Stand::new(Rules::default());
    assert_eq!(stand.say(443, &client_hello("api.example.com")), "");
    assert_eq!(stand.say(465, &client_hello("smtp.example.com")), "");
    let records = stand.records();
    assert_eq!((records[0].kind, records[0].host.as_str()), (Kind::Https, "api.example.com"));
    assert_eq!((records[1].kind, records[1].host.as_str()), (Kind::Smtp, "smtp.example.com"));
}

#[test]
fn mails_are_taken_with_their_recipients_and_other_protocols_are_guessed() {
    let stand = Stand::new(Rules::default());
    let told = stand
        .say(25, b"HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: s\r\n\r\n.\r\nQUIT\r\n");
    assert!(told.ends_with("221 2.0.0\r\n"), "{told}");
    assert_eq!(stand.say(6379, b"*1\r\n$4\r\nPING\r\n"), "");
    stand.sink.name(&[], IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv4Addr::LOCALHOST);
    let records = stand.records();
    assert_eq!((records[0].kind, &records[0].recipients), (Kind::Smtp, &vec!["c@d".to_owned()]));
    assert_eq!((records[1].kind, records[1].method.as_deref()), (Kind::Tcp, Some("Redis")));
}

#[test]
fn denied_is_recorded_and_gets_no_answer() {
    let stand = Stand::new(Rules { default: EgressDefault::Deny, ..Rules::default() });
    assert_eq!(stand.say(80, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), "");
    assert_eq!(stand.say(25, b"HELO a\r\n"), "");
    let records = stand.records();
    assert!(records.iter().all(|r| r.outcome == Fate::Denied) && records.len() == 2, "{records:?}");
}

#[test]
fn canned_answers_come_over_http_and_over_tls_with_the_authority_of_the_environment() {
    let authority = Authority::generate().expect("an authority");
    let mut stub = canned("api.example.com", Some("/v1/*"));
    stub.body = base64::engine::general_purpose::STANDARD.encode("{\"ok\":true}");
    stub.headers.insert("Content-Type".into(), "application/json".into());
    let stand =
        Stand::new(Rules { stubs: vec![stub], authority: Some(authority.clone()), ..Rules::default() });
    let request = b"POST /v1/chat HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 2\r\n\r\nhi";
    let plain = stand.say(80, request);
    assert!(
        plain.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json")
            && plain.ends_with("{\"ok\":true}"),
        "{plain}"
    );

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("PEM"))
        .expect("a root");
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from("api.example.com").expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut secured = rustls::StreamOwned::new(client, stand.connect(443));
    secured.write_all(request).expect("writes");
    let mut answer = String::new();
    secured.read_to_string(&mut answer).expect("a clean end");
    assert!(answer.ends_with("{\"ok\":true}"), "{answer}");
    let records = stand.records();
    assert!(
        records.iter().all(|r| r.outcome == Fate::Stubbed && r.path.as_deref() == Some("/v1/chat")),
        "{records:?}"
    );
    assert_eq!(records[1].kind, Kind::Https);
}

/// Stands for the world: whatever is let out comes to one listener.
struct Real(SocketAddr);

impl Outside for Real {
    fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        assert_eq!((host, port), ("api.example.com", 80));
        TcpStream::connect(self.0)
    }
}

#[test]
fn what_is_let_out_reaches_the_real_one_and_nothing_else_does() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let real = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut asked = [0; 16];
            stream.read_exact(&mut asked).expect("reads");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nreal").expect("writes");
        }
    });
    let allow = vec![Destination::parse("api.example.com:80").expect("a destination")];
    let mut stand = Stand::new(Rules { allow, ..Rules::default() });
    let sink = Arc::get_mut(&mut stand.sink).expect("ours alone");
    sink.outside = Box::new(Real(real));
    assert!(stand.say(80, b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n").ends_with("real"));
    assert!(stand.say(80, b"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n").starts_with("HTTP/1.1 502"));
    let records = stand.records();
    assert_eq!((records[0].outcome, records[1].outcome), (Fate::Allowed, Fate::Recorded));
}

#[test]
fn a_flood_of_connections_is_bounded_and_counted() {
    let stand = Stand::new(Rules::default());
    let all: Vec<TcpStream> = (0..CONNECTIONS + 20).map(|_| stand.connect(25)).collect();
    assert!(stand.sink.active.load(Ordering::Acquire) <= CONNECTIONS);
    drop(all);
    assert!(stand.records().len() <= CONNECTIONS);
}
