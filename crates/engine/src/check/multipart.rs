//! Encodes forms with files (RFC 7578).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use switchback_core::ids::Digest;
use switchback_core::workflow::PreparedPart;

/// The most that is uploaded in one request; a check is no load test.
const MAX_BYTES: u64 = 64 << 20;

/// Encodes the parts; files are read from `base`, which they cannot leave, not even by a link.
///
/// Returns the content type and the body.
pub(super) fn encode(parts: &[PreparedPart], base: &Path) -> Result<(String, Vec<u8>), String> {
    let mut sections = Vec::new();
    let mut digests = String::new();
    let mut total = 0;
    for part in parts {
        let (name, file, content) = match part {
            PreparedPart::Field { name, value } => (name, None, value.clone().into_bytes()),
            PreparedPart::Inline { name, text, filename, content_type } => {
                (name, Some((filename, content_type)), text.clone().into_bytes())
            }
            PreparedPart::Path { name, path, filename, content_type } => {
                (name, Some((filename, content_type)), read(base, path)?)
            }
        };
        total += content.len() as u64;
        if total > MAX_BYTES {
            return Err(format!("the form is larger than {MAX_BYTES} bytes"));
        }
        let mut head = format!("Content-Disposition: form-data; name=\"{}\"", escape(name));
        if let Some((filename, content_type)) = file {
            let content_type = content_type.replace(['\r', '\n'], "");
            head += &format!("; filename=\"{}\"\r\nContent-Type: {content_type}", escape(filename));
        }
        digests += Digest::of(&content).as_str();
        sections.push((head, content));
    }
    // Made from the content, so that runs are alike and no part can hold it.
    let boundary = format!("switchback-{}", Digest::of(digests.as_bytes()).short());
    let mut body = Vec::new();
    for (head, content) in sections {
        body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((format!("multipart/form-data; boundary={boundary}"), body))
}

/// The escapes of HTML's form submission.
fn escape(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

fn read(base: &Path, path: &str) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("cannot read {path:?} in the stack's folder: {e}");
    let base = base.canonicalize().map_err(cannot)?;
    let full = base.join(path).canonicalize().map_err(cannot)?;
    if !full.starts_with(&base) {
        return Err(format!("{path:?} is outside the workflow's folder"));
    }
    if !full.metadata().map_err(cannot)?.is_file() {
        return Err(format!("{path:?} is not a file"));
    }
    let mut content = Vec::new();
    File::open(full).map_err(cannot)?.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(cannot)?;
    Ok(content)
}
