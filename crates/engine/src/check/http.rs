//! The HTTP client of all checks, and the probes of health checks.
//!
//! Every server is treated as hostile: time, headers, body (after decompression) and redirects are
//! bounded. Proxies of the environment are never used: a check observes the stack itself.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use switchback_core::workflow::Response;
use ureq::http::{self, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, config::Config};

/// What a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time to connect.
    pub connect: Duration,
    /// Longest body in bytes, after decompression.
    pub body_bytes: u64,
    /// Longest header block in bytes.
    pub header_bytes: usize,
    /// Most redirects in a row.
    pub redirects: u32,
}

impl Default for Limits {
    /// 5 s to connect; 8 MiB bodies (larger than any API page, small enough to hold several);
    /// 32 KiB of headers (nginx's proxy buffers hold 32 KiB, Node allows 16); 10 redirects (curl allows 50, browsers
    /// 20; a login takes 3).
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), body_bytes: 8 << 20, header_bytes: 32 << 10, redirects: 10 }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// In capitals.
    pub method: String,
    /// Absolute.
    pub url: String,
    /// Headers, including the content type.
    pub headers: Vec<(String, String)>,
    /// The body, if any.
    pub body: Option<Vec<u8>>,
    /// Whether redirects are followed.
    pub redirects: Redirects,
    /// Limit from connecting to the last byte, over all redirects.
    pub timeout: Duration,
}

/// Whether redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Yes, but only within the environment.
    Follow,
    /// No: the redirect is the response.
    Return,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nothing listens.
    #[error("connection refused by {0}")]
    Refused(String),
    /// The host cannot be found or reached.
    #[error("cannot reach {address}: {why}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        why: String,
    },
    /// It took too long.
    #[error("no complete response from {address} within {} ms", .after.as_millis())]
    Timeout {
        /// Host and port.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// The body is too long (after decompression).
    #[error("the body is longer than {0} bytes")]
    BodyTooLarge(u64),
    /// The headers are too long.
    #[error("the response headers are longer than {0} bytes")]
    HeadersTooLarge(usize),
    /// It redirects without end.
    #[error("more than {0} redirects")]
    TooManyRedirects(u32),
    /// A redirect leads out of the environment under test, for example to production.
    #[error("a redirect leads out of the environment, to {0}")]
    LeftEnvironment(String),
    /// The connection broke or carried no HTTP.
    #[error("broken response from {address}: {why}")]
    Broken {
        /// Host and port.
        address: String,
        /// What was wrong.
        why: String,
    },
    /// The request could not be made; nothing was sent.
    #[error("the request cannot be sent: {0}")]
    Unusable(String),
}

/// A client with its own cookie jar.
pub struct HttpClient {
    agent: Agent,
    limits: Limits,
    inside: Vec<String>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Makes a client; `inside` lists `host:port` pairs that redirects may lead to.
    pub fn new(limits: Limits, inside: impl IntoIterator<Item = String>) -> Self {
        let inside = inside.into_iter().map(|a| normal_address(&a)).collect();
        Self { agent: agent(base_config(limits).build()), limits, inside }
    }

    /// Sends a request and reads the whole response.
    pub fn send(&self, request: &HttpRequest) -> Result<Response, HttpError> {
        let began = Instant::now();
        let mut url = parse_url(&request.url)?;
        let first = address_of(&url);
        let mut method = request.method.clone();
        let mut headers = request.headers.clone();
        let mut body = request.body.as_deref();
        let mut hops = 0;
        loop {
            let response = self.hop(&method, &url, &headers, body, request.timeout, began)?;
            let target = match request.redirects {
                Redirects::Follow if is_redirect(response.status) => response.header("location").next(),
                Redirects::Follow | Redirects::Return => None,
            };
            let Some(target) = target else { return Ok(response) };
            hops += 1;
            if hops > self.limits.redirects {
                return Err(HttpError::TooManyRedirects(self.limits.redirects));
            }
            let next = resolve(&url, target).ok_or_else(|| HttpError::Broken {
                address: address_of(&url),
                why: format!("redirect to {target:?}, which is not a URL"),
            })?;
            let (here, there) = (normal_address(&address_of(&url)), normal_address(&address_of(&next)));
            if there != normal_address(&first) && !self.inside.contains(&there) {
                return Err(HttpError::LeftEnvironment(address_of(&next)));
            }
            if here != there {
                headers.retain(|(n, _)| !matches_any(n, &["authorization", "cookie"]));
            }
            // RFC 9110, 15.4: 303 always becomes GET, 301 and 302 do so for POST in practice.
            if (response.status == 303 && method != "HEAD")
                || (matches!(response.status, 301 | 302) && method == "POST")
            {
                "GET".clone_into(&mut method);
                body = None;
                headers.retain(|(n, _)| !matches_any(n, &["content-type", "content-length"]));
            }
            url = next;
        }
    }

    fn hop(
        &self,
        method: &str,
        url: &Uri,
        headers: &[(String, String)],
        body: Option<&[u8]>,
        timeout: Duration,
        began: Instant,
    ) -> Result<Response, HttpError> {
        let address = address_of(url);
        let timed_out = || HttpError::Timeout { address: address.clone(), after: timeout };
        let left = timeout.checked_sub(began.elapsed()).filter(|d| !d.is_zero()).ok_or_else(timed_out)?;
        let mut builder = http::Request::builder().method(method).uri(url.clone());
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let explain = |error: ureq::Error| self.explain(error, &address, timeout);
        let unusable = |e: http::Error| HttpError::Unusable(e.to_string());
        let result = match body {
            Some(body) => {
                let request = builder.body(body).map_err(unusable)?;
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(left)).build())
            }
            None => {
                let request = builder.body(()).map_err(unusable)?;
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(left)).build())
            }
        };
        let mut response = result.map_err(explain)?;
        let limit = self.limits.body_bytes;
        let mut content = Vec::new();
        let mut reader = response.body_mut().as_reader().take(limit + 1);
        reader.read_to_end(&mut content).map_err(|e| explain(e.into()))?;
        if content.len() as u64 > limit {
            return Err(HttpError::BodyTooLarge(limit));
        }
        let headers = response
            .headers()
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        let mut response = Response::new(response.status().as_u16(), headers, content, began.elapsed());
        response.cookies = self
            .agent
            .cookie_jar_lock()
            .iter()
            .map(|c| (c.name().to_owned(), c.value().to_owned()))
            .collect();
        Ok(response)
    }

    fn explain(&self, error: ureq::Error, address: &str, timeout: Duration) -> HttpError {
        let address = address.to_owned();
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                HttpError::Timeout { address, after: self.limits.connect.min(timeout) }
            }
            ureq::Error::Timeout(_) => HttpError::Timeout { address, after: timeout },
            ureq::Error::LargeResponseHeader(..) => HttpError::HeadersTooLarge(self.limits.header_bytes),
            other => explain(other, address),
        }
    }
}

fn explain(error: ureq::Error, address: String) -> HttpError {
    use std::io::ErrorKind;
    match error {
        ureq::Error::Io(e) => match e.kind() {
            ErrorKind::ConnectionRefused => HttpError::Refused(address),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
                HttpError::Unreachable { address, why: e.to_string() }
            }
            _ if e.to_string().contains("lookup") => {
                HttpError::Unreachable { address, why: "no such host".into() }
            }
            _ => HttpError::Broken { address, why: e.to_string() },
        },
        ureq::Error::HostNotFound => HttpError::Unreachable { address, why: "no such host".into() },
        ureq::Error::ConnectionFailed => HttpError::Unreachable { address, why: "connecting failed".into() },
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => HttpError::Unusable(error.to_string()),
        other => HttpError::Broken { address, why: other.to_string() },
    }
}

fn base_config(limits: Limits) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Config::builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(limits.connect))
        .max_response_header_size(limits.header_bytes)
        // A fresh connection per request: a reused one that the server is just closing looks like
        // a broken service, and on the same machine connecting costs a tenth of a millisecond.
        .max_idle_connections(0)
        // ureq's 128 KiB buffers are cleared for every connection, which costs more than the rest.
        // The headers must fit in at once, with some room so that the limit is what stops them.
        .input_buffer_size(limits.header_bytes + (8 << 10))
        .output_buffer_size(8 << 10)
        .allow_non_standard_methods(true)
        .user_agent("switchback-check")
}

fn agent(config: Config) -> Agent {
    Agent::with_parts(config, DefaultConnector::default(), DirectResolver::default())
}

/// Takes addresses as they are; only names need the system's resolver (and ureq's thread for it).
#[derive(Debug, Default)]
struct DirectResolver(DefaultResolver);

impl Resolver for DirectResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let ip = uri.host().and_then(|h| h.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        let port = uri.port_u16().or(match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        });
        match (ip, port) {
            (Some(ip), Some(port)) => {
                let mut found = self.0.empty();
                found.push(SocketAddr::new(ip, port));
                Ok(found)
            }
            _ => self.0.resolve(uri, config, timeout),
        }
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

fn matches_any(name: &str, list: &[&str]) -> bool {
    list.iter().any(|n| name.eq_ignore_ascii_case(n))
}

fn parse_url(text: &str) -> Result<Uri, HttpError> {
    let text = text.split('#').next().unwrap_or(text);
    let url: Uri = text.parse().map_err(|e| HttpError::Unusable(format!("{text:?}: {e}")))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
        _ => Err(HttpError::Unusable(format!("{text:?} is not an http:// or https:// address"))),
    }
}

/// `host:port` of a URL.
fn address_of(url: &Uri) -> String {
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    format!("{}:{port}", url.host().unwrap_or_default())
}

/// The same text for all names of this machine's loopback.
fn normal_address(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    match host.to_ascii_lowercase().trim_matches(['[', ']']) {
        "localhost" | "127.0.0.1" | "::1" => format!("loopback:{port}"),
        other => format!("{other}:{port}"),
    }
}

/// Resolves a `Location` against the URL it came from (RFC 3986, 5.2, without dot segments beyond
/// what servers really send).
fn resolve(base: &Uri, target: &str) -> Option<Uri> {
    let target = target.split('#').next().unwrap_or_default().trim().replace(' ', "%20");
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let absolute = if target.starts_with("http://") || target.starts_with("https://") {
        target
    } else if let Some(rest) = target.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else if target.is_empty() || target.starts_with('?') {
        format!("{scheme}://{authority}{}{target}", base.path())
    } else {
        let mut folder: Vec<&str> = base.path().split('/').collect();
        folder.pop();
        let mut rest = target.as_str();
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                rest = after;
                if folder.len() > 1 {
                    folder.pop();
                }
            } else {
                break;
            }
        }
        format!("{scheme}://{authority}{}/{rest}", folder.join("/"))
    };
    parse_url(&absolute).ok()
}

/// Why a probe did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There was no response.
    #[error(transparent)]
    NoResponse(#[from] HttpError),
    /// There was one, with another status.
    #[error("status {got}, expected {} to {}", .expected.start(), .expected.end())]
    Status {
        /// The status.
        got: u16,
        /// The right ones.
        expected: RangeInclusive<u16>,
    },
}

/// Asks a URL once on a fresh connection; only the status counts, the body is not read.
pub fn probe_http(
    url: &str,
    expect_status: &RangeInclusive<u16>,
    timeout: Duration,
) -> Result<u16, ProbeError> {
    static AGENT: LazyLock<Agent> = LazyLock::new(|| agent(base_config(Limits::default()).build()));
    let url = parse_url(url)?;
    let address = address_of(&url);
    let request = AGENT.get(url).config().timeout_global(Some(timeout)).build();
    let got = match request.call() {
        Ok(response) => response.status().as_u16(),
        Err(ureq::Error::Timeout(_)) => {
            return Err(HttpError::Timeout { address, after: timeout }.into());
        }
        Err(other) => return Err(explain(other, address).into()),
    };
    // A probe is a stranger every time: no cookies from one to the next.
    AGENT.cookie_jar_lock().clear();
    if expect_status.contains(&got) {
        Ok(got)
    } else {
        Err(ProbeError::Status { got, expected: expect_status.clone() })
    }
}

/// Opens a TCP connection to `host:port` and closes it.
pub fn probe_tcp(address: &str, timeout: Duration) -> Result<(), ProbeError> {
    let unreachable = |why: String| HttpError::Unreachable { address: address.to_owned(), why };
    let candidates: Vec<SocketAddr> =
        address.to_socket_addrs().map_err(|e| unreachable(e.to_string()))?.collect();
    let deadline = Instant::now() + timeout;
    let mut last = unreachable("no such host".into());
    for candidate in candidates {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&candidate, left) {
            Ok(_) => return Ok(()),
            Err(e) => {
                last = match e.kind() {
                    std::io::ErrorKind::ConnectionRefused => HttpError::Refused(address.to_owned()),
                    std::io::ErrorKind::TimedOut => {
                        HttpError::Timeout { address: address.to_owned(), after: timeout }
                    }
                    _ => unreachable(e.to_string()),
                };
            }
        }
    }
    Err(last.into())
}

/// What stands between a client and a service that is not there yet accepts, and ends the connection within this time.
const ENDED: Duration = Duration::from_millis(200);

/// The same through something that accepts connections before the service does: it must not be ended at once.
pub fn probe_tcp_stays(address: &str, timeout: Duration) -> Result<(), ProbeError> {
    probe_tcp(address, timeout)?;
    let refused = || HttpError::Refused(address.to_owned()).into();
    let Ok(mut stream) = TcpStream::connect(address) else { return Err(refused()) };
    let _ = stream.set_read_timeout(Some(ENDED));
    match std::io::Read::read(&mut stream, &mut [0]) {
        Ok(0) => Err(refused()),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Err(refused()),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
