//! HAR files (HTTP Archive 1.2), as browsers save them.

use super::Exchange;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Why a file is no recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HarError {
    /// It is no HAR file.
    #[error("it is no HAR file: {0}")]
    Format(String),
    /// It has no requests.
    #[error("it has no requests")]
    Empty,
    /// It has none to the address that is asked for.
    #[error("it has no requests to {0}; it has requests to {1}")]
    Origin(String, String),
}

#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    request: Request,
    response: Response,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Pair>,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    #[serde(default)]
    mime_type: String,
    text: Option<String>,
    #[serde(default)]
    params: Vec<Pair>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    status: i64,
    #[serde(default)]
    content: Content,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    mime_type: String,
    text: Option<String>,
    encoding: Option<String>,
}

/// Reads the requests to one origin (`http://host:port`), by default the one that most went to.
pub fn parse_har(text: &str, origin: Option<&str>) -> Result<Vec<Exchange>, HarError> {
    let har: Har = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| HarError::Format(e.to_string()))?;
    let mut origins: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &har.log.entries {
        if let Some((origin, _)) = split(&entry.request.url) {
            *origins.entry(origin).or_default() += 1;
        }
    }
    // Of equals the first by name.
    let most = origins.iter().max_by_key(|(name, n)| (**n, std::cmp::Reverse((*name).clone())));
    let Some((most, _)) = most else { return Err(HarError::Empty) };
    let wanted = origin.map_or_else(|| most.clone(), |o| o.trim_end_matches('/').to_ascii_lowercase());
    if !origins.contains_key(&wanted) {
        let known: Vec<&str> = origins.keys().map(String::as_str).collect();
        return Err(HarError::Origin(wanted, known.join(", ")));
    }
    let mut found = Vec::new();
    for entry in har.log.entries {
        match split(&entry.request.url) {
            Some((origin, target)) if origin == wanted => found.push(exchange(entry, target)),
            _ => {}
        }
    }
    Ok(found)
}

/// Origin and target of an absolute URL; default ports are not written.
fn split(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return None;
    }
    let rest = rest.split('#').next()?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    let host = host.rsplit('@').next()?.to_ascii_lowercase();
    let host = match scheme.as_str() {
        "http" => host.strip_suffix(":80").map(str::to_owned),
        _ => host.strip_suffix(":443").map(str::to_owned),
    }
    .unwrap_or(host);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Some((format!("{scheme}://{host}"), target))
}

fn exchange(entry: Entry, target: String) -> Exchange {
    let Entry { request, response } = entry;
    let mut headers: Vec<(String, String)> = request
        .headers
        .into_iter()
        .filter(|h| !h.name.starts_with(':'))
        .map(|h| (h.name.to_ascii_lowercase(), h.value))
        .collect();
    let mut body = Vec::new();
    if let Some(post) = request.post_data {
        let media = post.mime_type.to_ascii_lowercase();
        body = match post.text {
            Some(text) => text.into_bytes(),
            None if media.starts_with("application/x-www-form-urlencoded") => {
                let pairs = post.params.iter().map(|p| format!("{}={}", p.name, p.value));
                pairs.collect::<Vec<_>>().join("&").into_bytes()
            }
            None => Vec::new(),
        };
        if !media.is_empty() && !headers.iter().any(|(n, _)| n == "content-type") {
            headers.push(("content-type".to_owned(), post.mime_type));
        }
    }
    let media = response.content.mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Only pictures and the like are encoded; nothing is read of them.
    let readable = response.content.encoding.is_none();
    Exchange {
        method: request.method.to_ascii_uppercase(),
        target,
        headers,
        body,
        status: u16::try_from(response.status).unwrap_or(0),
        answer_type: media,
        answer: response.content.text.filter(|_| readable).unwrap_or_default().into_bytes(),
    }
}
