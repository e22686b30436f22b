//! A repository behind a server that speaks restic's REST protocol, version 2.
//!
//! <https://restic.readthedocs.io/en/stable/100_references.html#rest-backend>

use super::http::{Http, range};
use bytes::Bytes;
use rustic_core::{BytesList, FileType, Id, ReadBackend, RusticResult, WriteBackend};
use serde::Deserialize;

const VERSION: &str = "application/vnd.x.restic.rest.v2";

/// The server.
#[derive(Debug)]
pub(super) struct Rest {
    /// With `/` at the end; may hold user and password.
    url: String,
    authorization: Option<String>,
    http: Http,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    size: u32,
}

impl Rest {
    pub(super) fn new(url: &str, shown: String) -> Self {
        let (url, authorization) = without_password(url);
        let url = if url.ends_with('/') { url } else { format!("{url}/") };
        Self { url, authorization, http: Http::new(shown) }
    }

    fn at(&self, kind: FileType, id: &Id) -> String {
        match kind {
            FileType::Config => format!("{}config", self.url),
            kind => format!("{}{}/{}", self.url, kind.dirname(), id.to_hex().as_str()),
        }
    }

    /// Asks, with the password.
    fn ask(
        &self,
        doing: &str,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        fine: &[u16],
    ) -> RusticResult<(u16, Vec<u8>)> {
        let mut headers = headers.to_vec();
        headers.extend(self.authorization.iter().map(|value| ("authorization", value.clone())));
        self.http.ask(doing, method, url, &headers, body, fine)
    }
}

/// Takes user and password out of an address: `Basic ...` instead.
fn without_password(url: &str) -> (String, Option<String>) {
    use base64::Engine as _;
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let host = rest.split('/').next().unwrap_or("");
    let Some((user, _)) = host.rsplit_once('@') else { return (url.to_owned(), None) };
    let basic = base64::prelude::BASE64_STANDARD.encode(user);
    (format!("{scheme}://{}", &rest[user.len() + 1..]), Some(format!("Basic {basic}")))
}

impl ReadBackend for Rest {
    fn location(&self) -> String {
        self.http.shown.clone()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let (status, _) = self.ask(
                "look for the repository",
                "HEAD",
                &self.at(kind, &Id::default()),
                &[],
                None,
                &[200, 404],
            )?;
            return Ok(if status == 200 { vec![(Id::default(), 0)] } else { Vec::new() });
        }
        let url = format!("{}{}/", self.url, kind.dirname());
        let accept = [("accept", VERSION.to_owned())];
        let (status, text) = self.ask("list files", "GET", &url, &accept, None, &[200, 404])?;
        if status == 404 {
            return Ok(Vec::new());
        }
        let entries: Option<Vec<Entry>> =
            serde_json::from_slice(&text).map_err(|e| self.http.failed("list files", &e.to_string()))?;
        let entries = entries.unwrap_or_default().into_iter();
        Ok(entries.filter_map(|e| Some((Id::parse_some(&e.name, kind)?, e.size))).collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        Ok(self.ask("read", "GET", &self.at(kind, id), &[], None, &[200])?.1.into())
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let answer =
            self.ask("read", "GET", &self.at(kind, id), &range(offset, length), None, &[200, 206])?;
        self.http.part(answer, offset, length)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.at(kind, id)
    }
}

impl WriteBackend for Rest {
    fn create(&self) -> RusticResult<()> {
        self.ask(
            "make the repository",
            "POST",
            &format!("{}?create=true", self.url),
            &[],
            Some(b""),
            &[200],
        )?;
        Ok(())
    }

    fn write_bytes(&self, kind: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
        let content = content.into_vec().concat();
        let kinds = [("content-type", "application/octet-stream".to_owned())];
        self.ask("write", "POST", &self.at(kind, id), &kinds, Some(&content), &[200])?;
        Ok(())
    }

    fn remove(&self, kind: FileType, id: &Id, _: bool) -> RusticResult<()> {
        self.ask("remove", "DELETE", &self.at(kind, id), &[], None, &[200, 204, 404])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_becomes_a_header() {
        let (url, header) = without_password("https://me:p@ss@host:8000/a@b/");
        assert_eq!((url.as_str(), header.as_deref()), ("https://host:8000/a@b/", Some("Basic bWU6cEBzcw==")));
        assert_eq!(without_password("http://host/x").1, None);
    }
}
