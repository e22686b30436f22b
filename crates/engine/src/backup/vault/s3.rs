//! A repository in a bucket of an object store that speaks S3, laid out as restic does it.

use super::http::{Http, range};
use super::location::S3Place;
use bytes::Bytes;
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use std::time::Duration;

/// How long the signature of a request counts. It must outlive the slowest transfer only to its beginning.
const SIGNED: Duration = Duration::from_secs(3600);

/// The bucket.
pub(super) struct S3 {
    bucket: Bucket,
    credentials: Credentials,
    /// Empty, or with `/` at the end.
    prefix: String,
    region: String,
    http: Http,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("at", &self.http.shown).finish_non_exhaustive()
    }
}

impl S3 {
    pub(super) fn new(place: &S3Place, shown: String) -> RusticResult<Self> {
        let wrong =
            |why: String| RusticError::new(ErrorKind::Backend, format!("{shown} cannot be reached: {why}"));
        let endpoint = place.endpoint.parse().map_err(|e| wrong(format!("{e}")))?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, place.bucket.clone(), place.region.clone())
            .map_err(|e| wrong(e.to_string()))?;
        let (id, secret) = (place.id.reveal(), place.secret.reveal());
        let credentials = match &place.token {
            Some(token) => Credentials::new_with_token(id, secret, token.reveal()),
            None => Credentials::new(id, secret),
        };
        let prefix = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        Ok(Self { bucket, credentials, prefix, region: place.region.clone(), http: Http::new(shown) })
    }

    fn key(&self, kind: FileType, id: &Id) -> String {
        let (hex, dir) = (id.to_hex(), kind.dirname());
        match kind {
            FileType::Config => format!("{}config", self.prefix),
            FileType::Pack => format!("{}{dir}/{}/{}", self.prefix, &hex.as_str()[..2], hex.as_str()),
            _ => format!("{}{dir}/{}", self.prefix, hex.as_str()),
        }
    }

    /// Files below a folder, with their sizes.
    fn list(&self, folder: &str) -> RusticResult<Vec<(String, u64)>> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(folder.to_owned());
            if let Some(token) = next.take() {
                action.with_continuation_token(token);
            }
            let url = action.sign(SIGNED);
            let (_, text) = self.http.ask("list files", "GET", url.as_str(), &[], None, &[200])?;
            let page = ListObjectsV2::parse_response(&String::from_utf8_lossy(&text))
                .map_err(|e| self.http.failed("list files", &e.to_string()))?;
            all.extend(page.contents.into_iter().map(|o| (o.key, o.size.unwrap_or(0))));
            match page.next_continuation_token {
                Some(token) if !token.is_empty() => next = Some(token),
                _ => return Ok(all),
            }
        }
    }
}

impl ReadBackend for S3 {
    fn location(&self) -> String {
        self.http.shown.clone()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let key = self.key(kind, &Id::default());
            let url = self.bucket.head_object(Some(&self.credentials), &key).sign(SIGNED);
            let (status, _) =
                self.http.ask("look for the repository", "HEAD", url.as_str(), &[], None, &[200, 404])?;
            return Ok(if status == 200 { vec![(Id::default(), 0)] } else { Vec::new() });
        }
        let found = self.list(&format!("{}{}/", self.prefix, kind.dirname()))?;
        let named = found.into_iter().filter_map(|(key, size)| {
            let name = key.rsplit('/').next()?;
            Some((Id::parse_some(name, kind)?, u32::try_from(size).ok()?))
        });
        Ok(named.collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let url = self.bucket.get_object(Some(&self.credentials), &self.key(kind, id)).sign(SIGNED);
        Ok(self.http.ask("read", "GET", url.as_str(), &[], None, &[200])?.1.into())
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let url = self.bucket.get_object(Some(&self.credentials), &self.key(kind, id)).sign(SIGNED);
        let answer = self.http.ask("read", "GET", url.as_str(), &range(offset, length), None, &[200, 206])?;
        self.http.part(answer, offset, length)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.key(kind, id)
    }
}

impl WriteBackend for S3 {
    /// Makes the bucket if there is none.
    fn create(&self) -> RusticResult<()> {
        let url = self.bucket.head_bucket(Some(&self.credentials)).sign(SIGNED);
        // Who may only use what is in it is told so for the bucket itself.
        let (status, _) =
            self.http.ask("look for the bucket", "HEAD", url.as_str(), &[], None, &[200, 301, 403, 404])?;
        if status != 404 {
            return Ok(());
        }
        let elsewhere = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
            self.region
        );
        // The first region is the one that must not be named.
        let body = if self.region == "us-east-1" { &[][..] } else { elsewhere.as_bytes() };
        let url = self.bucket.create_bucket(&self.credentials).sign(SIGNED);
        self.http.ask("make the bucket", "PUT", url.as_str(), &[], Some(body), &[200])?;
        Ok(())
    }

    fn write_bytes(&self, kind: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
        let content = content.into_vec().concat();
        let url = self.bucket.put_object(Some(&self.credentials), &self.key(kind, id)).sign(SIGNED);
        self.http.ask("write", "PUT", url.as_str(), &[], Some(&content), &[200])?;
        Ok(())
    }

    fn remove(&self, kind: FileType, id: &Id, _: bool) -> RusticResult<()> {
        let url = self.bucket.delete_object(Some(&self.credentials), &self.key(kind, id)).sign(SIGNED);
        self.http.ask("remove", "DELETE", url.as_str(), &[], None, &[200, 204, 404])?;
        Ok(())
    }
}
