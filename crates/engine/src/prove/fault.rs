//! Faults that a proxy puts into requests and answers.

use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A request, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// In capitals.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

impl Asked {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    /// What lets a client in, if it has any.
    pub fn login(&self) -> Option<(&'static str, String)> {
        let find = |name: &'static str| Some((name, header(&self.headers, name)?.to_owned()));
        find("authorization").or_else(|| find("cookie")).or_else(|| find("x-api-key"))
    }

    /// Whether it uploads files.
    pub fn uploads(&self) -> bool {
        header(&self.headers, "content-type").is_some_and(|t| t.starts_with("multipart/form-data"))
    }
}

impl Answered {
    /// A short answer.
    pub fn with(status: u16, body: &str) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: body.as_bytes().to_vec() }
    }

    /// Whether its media type says so.
    pub fn is(&self, word: &str) -> bool {
        header(&self.headers, "content-type").is_some_and(|t| t.contains(word))
    }

    /// The content, where it is JSON.
    pub fn json(&self) -> Option<Value> {
        header(&self.headers, "content-type").filter(|t| t.contains("json"))?;
        serde_json::from_slice(&self.body).ok()
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Nothing,
    /// One more property, and 3 % slower.
    Harmless,
    /// Writing requests to this path answer 500.
    WriteFails(String),
    /// Successful answers of this path hold an error instead.
    ErrorInContent(String),
    /// Half as long again, and at least so much.
    Slower(Duration),
    /// Some answers take so much longer.
    SlowTail(Duration),
    /// A property of what is written is dropped.
    NotKept,
    /// Numbers in answers to GET are off by one.
    NumbersOff,
    /// Times are an hour off, and letters outside of ASCII are broken.
    TimesOff,
    /// Nobody is at the port.
    NobodyThere,
    /// Uploads are refused.
    UploadsRefused,
    /// Who logs in is refused.
    LoginRefused,
    /// Who does not log in gets in.
    Open,
    /// A property has another name.
    Renamed,
    /// Numbers are text.
    NumbersAsText,
    /// Answers ask for a parameter that nobody sends.
    ParameterAsked,
    /// 503, except to the health check.
    Dead(String),
    /// A script of every page throws.
    ScriptThrows,
    /// Style sheets are not there.
    StyleGone,
}

/// A fault, and how often it landed.
pub struct Fault {
    /// What is wrong.
    pub kind: Kind,
    landed: AtomicUsize,
    seen: AtomicUsize,
    login: std::sync::Mutex<Option<(&'static str, String)>>,
}

/// Every so many answers one is slow: 8 %.
const TAIL: usize = 12;

impl Fault {
    /// One that has not landed yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            landed: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
            login: std::sync::Mutex::default(),
        }
    }

    /// How often it landed.
    pub fn landed(&self) -> usize {
        self.landed.load(Ordering::Relaxed)
    }

    fn land(&self) {
        self.landed.fetch_add(1, Ordering::Relaxed);
    }

    /// Before the service is asked: another request, or an answer in its place.
    pub fn before(&self, asked: &mut Asked) -> Option<Answered> {
        match &self.kind {
            Kind::WriteFails(path) if asked.writes() && asked.path() == path => {
                self.land();
                Some(Answered::with(500, "{\"error\":\"internal\"}"))
            }
            Kind::UploadsRefused if asked.uploads() => {
                self.land();
                Some(Answered::with(500, "{\"error\":\"cannot write the file\"}"))
            }
            Kind::LoginRefused if asked.login().is_some() => {
                self.land();
                Some(Answered::with(401, "{\"error\":\"unauthorized\"}"))
            }
            Kind::ParameterAsked if asked.method == "GET" && asked.target.contains('?') => {
                self.land();
                Some(Answered::with(400, "{\"error\":\"parameter `tenant` is required\"}"))
            }
            Kind::Dead(health) if asked.path() != health => {
                self.land();
                Some(Answered::with(503, "{\"error\":\"unavailable\"}"))
            }
            Kind::Open => {
                let Ok(mut known) = self.login.lock() else { return None };
                match (asked.login(), known.clone()) {
                    (Some(login), _) => *known = Some(login),
                    (None, Some((name, value))) => {
                        self.land();
                        asked.headers.push((name.to_owned(), value));
                    }
                    (None, None) => {}
                }
                None
            }
            Kind::NotKept if asked.writes() => {
                if let Ok(Value::Object(mut body)) = serde_json::from_slice(&asked.body)
                    && body.len() > 1
                    && let Some(last) = body.keys().next_back().cloned()
                {
                    body.shift_remove(&last);
                    asked.body = Value::Object(body).to_string().into_bytes();
                    self.land();
                }
                None
            }
            _ => None,
        }
    }

    /// After the service answered.
    pub fn after(&self, asked: &Asked, answered: &mut Answered, took: Duration) {
        match &self.kind {
            Kind::Harmless => {
                std::thread::sleep(took.mul_f64(0.03));
                if let Some(Value::Object(mut body)) = answered.json() {
                    body.insert("switchback_control".to_owned(), Value::Null);
                    answered.body = Value::Object(body).to_string().into_bytes();
                }
                self.land();
            }
            Kind::ErrorInContent(path) if asked.path() == path && answered.status < 300 => {
                *answered = Answered {
                    status: answered.status,
                    ..Answered::with(0, "{\"error\":\"no such table\"}")
                };
                self.land();
            }
            Kind::Slower(least) => {
                std::thread::sleep((took / 2).max(*least));
                self.land();
            }
            Kind::SlowTail(by) if self.seen.fetch_add(1, Ordering::Relaxed) % TAIL == TAIL - 1 => {
                std::thread::sleep(*by);
                self.land();
            }
            Kind::NumbersOff if asked.method == "GET" => self.rewrite(answered, &mut |value| match value {
                Value::Number(n) => {
                    n.as_i64().map(|n| Value::from(n + 1)).or_else(|| Some(Value::from(n.as_f64()? + 0.01)))
                }
                _ => None,
            }),
            Kind::NumbersAsText if asked.method == "GET" => {
                self.rewrite(answered, &mut |value| match value {
                    Value::Number(n) => Some(Value::from(n.to_string())),
                    _ => None,
                });
            }
            Kind::TimesOff if asked.method == "GET" => self.rewrite(answered, &mut |value| {
                let text = value.as_str()?;
                if !text.is_ascii() {
                    // As one who takes UTF-8 for Latin-1.
                    return Some(Value::from(text.bytes().map(char::from).collect::<String>()));
                }
                an_hour_later(text).map(Value::from)
            }),
            Kind::ScriptThrows if answered.is("html") => {
                answered.body.extend_from_slice(b"<script>throw new Error('known-bad upgrade M25')</script>");
                self.land();
            }
            Kind::StyleGone if answered.is("css") => {
                *answered = Answered { status: 404, ..Answered::with(404, "{\"error\":\"not found\"}") };
                self.land();
            }
            Kind::Renamed if asked.method == "GET" => {
                if let Some(mut body) = answered.json()
                    && rename(&mut body)
                {
                    answered.body = body.to_string().into_bytes();
                    self.land();
                }
            }
            _ => {}
        }
    }

    fn rewrite(&self, answered: &mut Answered, change: &mut dyn FnMut(&Value) -> Option<Value>) {
        let Some(mut body) = answered.json() else { return };
        let mut count = 0;
        walk(&mut body, change, &mut count);
        if count > 0 {
            answered.body = body.to_string().into_bytes();
            self.land();
        }
    }
}

fn walk(value: &mut Value, change: &mut dyn FnMut(&Value) -> Option<Value>, count: &mut usize) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|v| walk(v, change, count)),
        Value::Object(body) => body.values_mut().for_each(|v| walk(v, change, count)),
        plain => {
            if let Some(new) = change(plain) {
                *plain = new;
                *count += 1;
            }
        }
    }
}

/// The first property of the first object gets another name.
fn rename(value: &mut Value) -> bool {
    match value {
        Value::Object(body) => {
            let Some(first) = body.keys().next().cloned() else { return false };
            let old = body.shift_remove(&first).unwrap_or_default();
            body.insert(format!("{first}Renamed"), old);
            true
        }
        Value::Array(all) => {
            let mut any = false;
            for inner in all {
                any |= rename(inner);
            }
            any
        }
        _ => false,
    }
}

/// `2026-11-27T08:15:00Z` an hour later, as one who mistakes the time zone; `None` for what is no time.
fn an_hour_later(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 19
        && bytes.get(4) == Some(&b'-')
        && matches!(bytes.get(10), Some(b'T' | b' '))
        && bytes.get(13) == Some(&b':');
    let hour = text.get(11..13).filter(|_| shape)?.parse::<u32>().ok()?;
    Some(format!("{}{:02}{}", text.get(..11)?, (hour + 1) % 24, text.get(13..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, body: &str) -> Asked {
        Asked {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn changed(kind: Kind, body: &str) -> (String, usize) {
        let fault = Fault::new(kind);
        let mut answered = Answered::with(200, body);
        fault.after(&asked("GET", "/x?a=1", ""), &mut answered, Duration::ZERO);
        (String::from_utf8(answered.body).expect("text"), fault.landed())
    }

    #[test]
    fn answers_are_changed_where_the_fault_says_and_it_is_counted() {
        assert_eq!(changed(Kind::NumbersOff, "{\"a\":[1,2.5]}"), ("{\"a\":[2,2.51]}".into(), 1));
        assert_eq!(changed(Kind::NumbersAsText, "{\"a\":1}"), ("{\"a\":\"1\"}".into(), 1));
        assert_eq!(changed(Kind::Renamed, "[{\"a\":1}]"), ("[{\"aRenamed\":1}]".into(), 1));
        let times = changed(Kind::TimesOff, "{\"at\":\"2026-11-27T23:15:00Z\",\"t\":\"x\"}");
        assert_eq!(times, ("{\"at\":\"2026-11-27T00:15:00Z\",\"t\":\"x\"}".into(), 1));
        assert_eq!(changed(Kind::TimesOff, "{\"t\":\"x\"}").1, 0);
        assert_eq!(changed(Kind::Harmless, "{\"a\":1}").0, "{\"a\":1,\"switchback_control\":null}");
        assert_eq!(changed(Kind::Nothing, "{\"a\":1}"), ("{\"a\":1}".into(), 0));
    }

    #[test]
    fn requests_are_refused_or_let_in_where_the_fault_says() {
        let status = |kind: Kind, asked: &mut Asked| Fault::new(kind).before(asked).map(|a| a.status);
        assert_eq!(status(Kind::WriteFails("/n".into()), &mut asked("POST", "/n?x", "")), Some(500));
        assert_eq!(status(Kind::WriteFails("/n".into()), &mut asked("GET", "/n", "")), None);
        assert_eq!(status(Kind::Dead("/health".into()), &mut asked("GET", "/", "")), Some(503));
        assert_eq!(status(Kind::Dead("/health".into()), &mut asked("GET", "/health", "")), None);
        let open = Fault::new(Kind::Open);
        let mut first = asked("GET", "/", "");
        first.headers.push(("authorization".into(), "Bearer t".into()));
        assert!(open.before(&mut first).is_none() && open.landed() == 0);
        let mut second = asked("GET", "/", "");
        assert!(open.before(&mut second).is_none());
        assert_eq!((second.login(), open.landed()), (Some(("authorization", "Bearer t".into())), 1));
        let kept = Fault::new(Kind::NotKept);
        let mut write = asked("POST", "/n", "{\"a\":1,\"b\":2}");
        assert!(kept.before(&mut write).is_none());
        assert_eq!(write.body, b"{\"a\":1}");
    }
}
