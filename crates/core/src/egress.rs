//! What a staging copy tried to send out: records, and what they come to.
//!
//! A record says who wanted to send what where, and what became of it. It must never hold a secret: no values of
//! headers, no bodies, no values of a query.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most records of one environment that a journal keeps one by one; the summary counts all of them.
pub const KEPT_RECORDS: usize = 200;
/// The most recipients, and the most characters of any text, in a record or a line of a summary.
const LIMIT_RECIPIENTS: usize = 50;
const LIMIT_CHARS: usize = 300;

/// The kinds of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A name was asked for.
    Dns,
    /// A request over HTTP.
    Http,
    /// A connection over TLS; the request inside is only known where a stub answered it.
    Https,
    /// A mail.
    Smtp,
    /// Another connection.
    Tcp,
    /// A datagram.
    Udp,
}

impl Kind {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Smtp => "mail",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It was taken and went nowhere.
    Recorded,
    /// It got no answer.
    Denied,
    /// The configuration lets it out.
    Allowed,
    /// A canned answer was given.
    Stubbed,
}

impl Fate {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Denied => "denied",
            Self::Allowed => "allowed",
            Self::Stubbed => "stubbed",
        }
    }
}

/// One attempt to send something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// The service, or the address it came from where that is not known.
    pub service: String,
    /// What it was.
    pub kind: Kind,
    /// Where to: a name where one was given, else an address.
    pub host: String,
    /// The port; 53 for names.
    pub port: u16,
    /// The method of a request, the type of a question, the protocol that the first bytes look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path of a request; values of its query are replaced by `***`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The sender of a mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The recipients of a mail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// The subject of a mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Bytes that came, as far as they were read.
    pub bytes: u64,
    /// What became of it.
    pub outcome: Fate,
}

impl Sent {
    /// A record with nothing but what every one has.
    pub fn new(kind: Kind, service: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Self {
            at_ms: 0,
            service: service.into(),
            kind,
            host: host.into(),
            port,
            method: None,
            path: None,
            sender: None,
            recipients: Vec::new(),
            subject: None,
            bytes: 0,
            outcome: Fate::Recorded,
        }
    }

    /// Changes every text that came from outside, and bounds it.
    #[must_use]
    pub fn cleaned(mut self, redact: &dyn Fn(&str) -> String) -> Self {
        let clean = |text: &str| bounded(&redact(text));
        self.service = clean(&self.service);
        self.host = clean(&self.host);
        for text in [&mut self.method, &mut self.path, &mut self.sender, &mut self.subject] {
            *text = text.as_deref().map(clean);
        }
        self.recipients.truncate(LIMIT_RECIPIENTS);
        self.recipients = self.recipients.iter().map(|r| clean(r)).collect();
        self
    }
}

/// A text of a bounded length without control characters.
fn bounded(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = plain.take(LIMIT_CHARS + 1).collect();
    if short.chars().count() > LIMIT_CHARS {
        short.pop();
        short.push('…');
    }
    short
}

/// A path whose query has names only: `/hook?token=abc` becomes `/hook?token=***`.
pub fn without_query_values(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else {
        return path.split('#').next().unwrap_or_default().to_owned();
    };
    let query = query.split('#').next().unwrap_or_default();
    let names = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        // A query without names is a value.
        None if pair.is_empty() => String::new(),
        None => "***".to_owned(),
    });
    format!("{path}?{}", names.collect::<Vec<_>>().join("&"))
}

/// What one environment tried to send while it ran once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// The environment and what observed it: the same observation is never counted twice.
    pub session: String,
    /// `baseline`, `candidate` ...
    pub environment: String,
    /// Why nothing could be observed, where nothing could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_observed: Option<String>,
    /// The first records, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Sent>,
    /// The last records, for who looks at them while the environment runs.
    #[serde(skip)]
    pub latest: Vec<Sent>,
    /// All records, by service and destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
    /// Attempts that were seen and not recorded, because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Egress {
    /// That nothing could be observed, and why.
    pub fn not_observed(environment: &str, why: impl Into<String>) -> Self {
        Self { environment: environment.to_owned(), not_observed: Some(why.into()), ..Self::default() }
    }

    /// What was observed.
    pub fn observed(environment: &str, session: impl Into<String>, records: Vec<Sent>, dropped: u64) -> Self {
        let lines = summary(environment, &records);
        let mut records = records;
        records.sort_by_key(|r| r.at_ms);
        let latest = records[records.len().saturating_sub(KEPT_RECORDS)..].to_vec();
        records.truncate(KEPT_RECORDS);
        Self {
            session: session.into(),
            environment: environment.to_owned(),
            not_observed: None,
            records,
            latest,
            lines,
            dropped,
        }
    }
}

/// What one service of an environment tried to send to one destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
    /// What it was.
    pub kind: Kind,
    /// Where to.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What became of it.
    pub outcome: Fate,
    /// How often.
    pub count: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Recipients of mails, each once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub recipients: BTreeSet<String>,
    /// Examples: methods and paths, subjects; a few.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub examples: BTreeSet<String>,
}

/// Examples of one line: enough to recognise what it is.
const EXAMPLES: usize = 3;

/// Records by service and destination.
///
/// A name that was only asked for, and then connected to, is told by the connection.
pub fn summary(environment: &str, records: &[Sent]) -> Vec<Line> {
    let connected: BTreeSet<(&str, &str)> = records
        .iter()
        .filter(|r| r.kind != Kind::Dns)
        .map(|r| (r.service.as_str(), r.host.as_str()))
        .collect();
    let mut lines: BTreeMap<(&str, Kind, &str, u16, Fate), Line> = BTreeMap::new();
    for r in records {
        if r.kind == Kind::Dns && connected.contains(&(r.service.as_str(), r.host.as_str())) {
            continue;
        }
        let line = lines.entry((&r.service, r.kind, &r.host, r.port, r.outcome)).or_insert_with(|| Line {
            environment: environment.to_owned(),
            service: r.service.clone(),
            kind: r.kind,
            host: r.host.clone(),
            port: r.port,
            outcome: r.outcome,
            count: 0,
            bytes: 0,
            recipients: BTreeSet::new(),
            examples: BTreeSet::new(),
        });
        line.count += 1;
        line.bytes = line.bytes.saturating_add(r.bytes);
        for recipient in &r.recipients {
            if line.recipients.len() < LIMIT_RECIPIENTS {
                line.recipients.insert(recipient.clone());
            }
        }
        let example = match (&r.method, &r.path, &r.subject) {
            (_, _, Some(subject)) => Some(subject.clone()),
            (Some(method), Some(path), None) => Some(format!("{method} {path}")),
            (Some(method), None, None) if r.kind != Kind::Dns => Some(method.clone()),
            _ => None,
        };
        if let Some(example) = example.filter(|e| !e.is_empty())
            && line.examples.len() < EXAMPLES
        {
            line.examples.insert(example);
        }
    }
    lines.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_never_kept() {
        assert_eq!(without_query_values("/a?token=s3cret&x=1&flag"), "/a?token=***&x=***&***");
        assert_eq!(without_query_values("/a#frag"), "/a");
        assert_eq!(without_query_values("/a?"), "/a?");
        assert_eq!(without_query_values("/a?b=1#c=2"), "/a?b=***");
    }

    #[test]
    fn texts_are_bounded_and_have_no_control_characters() {
        let mut sent = Sent::new(Kind::Smtp, "app", "mail\r\n\u{1b}[31m", 25);
        sent.subject = Some("x".repeat(10_000));
        sent.recipients = vec!["a@b".to_owned(); 1000];
        let clean = sent.cleaned(&|t| t.replace("mail", "***"));
        assert_eq!(clean.host, "***   [31m");
        assert_eq!(clean.subject.map(|s| s.chars().count()), Some(LIMIT_CHARS + 1));
        assert_eq!(clean.recipients.len(), LIMIT_RECIPIENTS);
    }

    #[test]
    fn a_summary_counts_by_service_and_destination_and_tells_a_name_once() {
        let mut mail = Sent::new(Kind::Smtp, "app", "mx.example.com", 25);
        mail.recipients = vec!["a@example.com".into(), "b@example.com".into()];
        mail.bytes = 10;
        let asked = Sent::new(Kind::Dns, "app", "mx.example.com", 53);
        let only_asked = Sent::new(Kind::Dns, "app", "other.example.com", 53);
        let lines = summary("baseline", &[asked, mail.clone(), mail, only_asked]);
        assert_eq!(lines.len(), 2);
        let mails = lines.iter().find(|l| l.kind == Kind::Smtp).expect("mails");
        assert_eq!((mails.count, mails.bytes, mails.recipients.len()), (2, 20, 2));
        assert!(lines.iter().any(|l| l.kind == Kind::Dns && l.host == "other.example.com"));
    }

    #[test]
    fn a_journal_keeps_few_records_and_counts_all() {
        let records = vec![Sent::new(Kind::Http, "app", "x", 80); KEPT_RECORDS * 3];
        let egress = Egress::observed("baseline", "s", records, 7);
        assert_eq!(egress.records.len(), KEPT_RECORDS);
        assert_eq!(egress.lines[0].count, 3 * KEPT_RECORDS as u64);
    }
}
