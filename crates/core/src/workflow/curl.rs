//! The command that reproduces a request outside Switchback.

use super::redact::{Piece, Redactor};
use super::request::{PreparedBody, PreparedPart, PreparedRequest};

/// Bodies longer than this are left out of the command; nobody pastes more than a screen.
const MAX_BODY: usize = 2000;

/// Writes a `curl` line. Secrets appear as `"$NAME"`, to be set in the shell that runs it.
pub fn curl_command(request: &PreparedRequest, redactor: &Redactor) -> String {
    let mut line = String::from("curl -sS");
    if request.follow_redirects {
        line.push_str(" -L");
    }
    match request.method.as_str() {
        "GET" if request.body == PreparedBody::Empty => {}
        "HEAD" => line.push_str(" --head"),
        method => line.push_str(&format!(" -X {}", quote(method, redactor))),
    }
    let mut has_type = false;
    for (name, value) in &request.headers {
        has_type |= name.eq_ignore_ascii_case("content-type");
        line.push_str(&format!(" -H {}", quote(&format!("{name}: {value}"), redactor)));
    }
    match &request.body {
        PreparedBody::Empty => {}
        PreparedBody::Text { content_type, text } => {
            if !has_type {
                line.push_str(&format!(" -H {}", quote(&format!("content-type: {content_type}"), redactor)));
            }
            if text.len() > MAX_BODY {
                line.push_str(" --data-binary @body");
            } else {
                line.push_str(&format!(" --data-raw {}", quote(text, redactor)));
            }
        }
        PreparedBody::Multipart(parts) => {
            for part in parts {
                line.push_str(&match part {
                    PreparedPart::Field { name, value } => {
                        format!(" --form-string {}", quote(&format!("{name}={value}"), redactor))
                    }
                    PreparedPart::Path { name, path, filename, content_type } => {
                        let form = format!("{name}=@{path};filename={filename};type={content_type}");
                        format!(" -F {}", quote(&form, redactor))
                    }
                    PreparedPart::Inline { name, text, .. } => {
                        format!(" --form-string {}", quote(&format!("{name}={text}"), redactor))
                    }
                });
            }
        }
    }
    line.push(' ');
    line.push_str(&quote(&request.url, redactor));
    line
}

/// Quotes a word for a POSIX shell; a secret becomes a variable in double quotes.
fn quote(text: &str, redactor: &Redactor) -> String {
    let mut out = String::new();
    redactor.split(text, |piece| match piece {
        Piece::Text(t) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/:@%+=,".contains(&b);
            if t.bytes().all(plain) {
                out.push_str(t);
            } else {
                out.push_str(&format!("'{}'", t.replace('\'', r"'\''")));
            }
        }
        Piece::Secret(name) => {
            let name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            out.push_str(&format!("\"${}\"", if name.is_empty() { "SECRET" } else { &name }));
        }
    });
    if out.is_empty() { "''".to_owned() } else { out }
}
