//! A request with every placeholder replaced, ready to send.

use super::model::{Part, Request, SqlStep};
use super::template::{Piece, RenderError, Scope};
use crate::duration::Span;
use serde_json::Value;

/// A request as it goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedRequest {
    /// In capitals.
    pub method: String,
    /// Absolute, with the query.
    pub url: String,
    /// Headers of the file, without those that follow from the body.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: PreparedBody,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Limit for the request.
    pub timeout: Span,
}

/// A body.
#[derive(Debug, Clone, PartialEq)]
pub enum PreparedBody {
    /// None.
    Empty,
    /// Text of a content type.
    Text {
        /// Sent unless the file sets a content type.
        content_type: &'static str,
        /// The content.
        text: String,
    },
    /// A form with files; the engine reads them.
    Multipart(Vec<PreparedPart>),
}

/// A part of a multipart body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreparedPart {
    /// A plain field.
    Field {
        /// Field name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A file from disk.
    Path {
        /// Field name.
        name: String,
        /// Relative to the workflow's folder.
        path: String,
        /// The name that is sent.
        filename: String,
        /// The type that is sent.
        content_type: String,
    },
    /// A file given in the workflow.
    Inline {
        /// Field name.
        name: String,
        /// The content.
        text: String,
        /// The name that is sent.
        filename: String,
        /// The type that is sent.
        content_type: String,
    },
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn percent_encode(text: &str) -> String {
    encode(text, |b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

/// Percent-encodes only what can never stand in a URL.
fn encode_url(text: &str) -> String {
    encode(text, |b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
}

fn encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if keep(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn pairs<'a>(
    map: impl IntoIterator<Item = (&'a String, &'a super::template::Template)>,
    scope: &Scope<'_>,
) -> Result<String, RenderError> {
    let mut out = Vec::new();
    for (name, value) in map {
        out.push(format!("{}={}", percent_encode(name), percent_encode(&value.render(scope)?)));
    }
    Ok(out.join("&"))
}

/// Replaces every placeholder of a request.
pub fn prepare(request: &Request, scope: &Scope<'_>) -> Result<PreparedRequest, RenderError> {
    let mut url = encode_url(request.url.render(scope)?.trim());
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(RenderError::Unusable(format!("{url:?} is not an http:// or https:// address")));
    }
    if !request.query.is_empty() {
        let query = pairs(&request.query, scope)?;
        let (base, fragment) = match url.split_once('#') {
            Some((base, fragment)) => (base.to_owned(), format!("#{fragment}")),
            None => (url, String::new()),
        };
        let joint = if base.contains('?') { '&' } else { '?' };
        url = format!("{base}{joint}{query}{fragment}");
    }
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| Ok((name.clone(), value.render(scope)?)))
        .collect::<Result<Vec<_>, RenderError>>()?;
    Ok(PreparedRequest {
        method: request.method().to_owned(),
        url,
        headers,
        body: body(request, scope)?,
        follow_redirects: request.follow_redirects,
        timeout: request.timeout,
    })
}

fn body(request: &Request, scope: &Scope<'_>) -> Result<PreparedBody, RenderError> {
    if let Some(json) = &request.json {
        let text = scope.render_value(json)?.to_string();
        return Ok(PreparedBody::Text { content_type: "application/json", text });
    }
    if let Some(text) = &request.body {
        let text = text.render(scope)?;
        return Ok(PreparedBody::Text { content_type: "text/plain; charset=utf-8", text });
    }
    if let Some(form) = &request.form {
        let text = pairs(form, scope)?;
        return Ok(PreparedBody::Text { content_type: "application/x-www-form-urlencoded", text });
    }
    let Some(parts) = &request.multipart else { return Ok(PreparedBody::Empty) };
    let mut prepared = Vec::new();
    for (name, part) in parts {
        let name = name.clone();
        prepared.push(match part {
            Part::Field(value) => PreparedPart::Field { name, value: value.render(scope)? },
            Part::File(file) => {
                let content_type =
                    file.content_type.clone().unwrap_or_else(|| "application/octet-stream".into());
                let filename = file.filename.as_ref().map(|f| f.render(scope)).transpose()?;
                match (&file.path, &file.text) {
                    (Some(path), _) => PreparedPart::Path {
                        name,
                        path: path.clone(),
                        filename: filename
                            .unwrap_or_else(|| path.rsplit('/').next().unwrap_or_default().to_owned()),
                        content_type,
                    },
                    (None, text) => PreparedPart::Inline {
                        filename: filename.unwrap_or_else(|| name.clone()),
                        text: text.as_ref().map(|t| t.render(scope)).transpose()?.unwrap_or_default(),
                        name,
                        content_type,
                    },
                }
            }
        });
    }
    Ok(PreparedBody::Multipart(prepared))
}

/// Turns the placeholders of a query into numbered parameters (`?1`, `?2`) and their values.
pub fn prepare_sql(step: &SqlStep, scope: &Scope<'_>) -> Result<(String, Vec<Value>), RenderError> {
    let (mut sql, mut values) = (String::new(), Vec::new());
    for piece in &step.sql.pieces {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Ref(what) => {
                values.push(scope.resolve(what)?);
                sql.push_str(&format!("?{}", values.len()));
            }
        }
    }
    Ok((sql, values))
}
