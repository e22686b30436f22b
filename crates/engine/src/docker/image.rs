//! Images: looking at, pulling, naming and importing them.
//!
//! Owns the facts about an image as values. It must never remove an image that still has a container.

use super::error::Call;
use super::stream::{Fed, fed, feed};
use super::{Docker, DockerError, credentials, done_or_gone, name, optional};
use crate::store::Progress;
use bollard::errors::Error as Answer;
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions};
use futures_util::StreamExt as _;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::time::Duration;

/// A pull that says nothing for so long is given up: unpacking a large layer reports in between.
const SILENT: Duration = Duration::from_secs(300);
/// How often a pull looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// `sha256:...` of its configuration.
    pub id: String,
    /// Its names here: `n8nio/n8n:2.8.4`.
    pub repo_tags: Vec<String>,
    /// Where it can be pulled again: `n8nio/n8n@sha256:...`.
    pub repo_digests: Vec<String>,
    /// Bytes of its layers.
    pub size_bytes: u64,
    /// RFC 3339.
    pub created: String,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Paths that it declares as volumes.
    pub volumes: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command.
    pub cmd: Vec<String>,
    /// User; empty means root.
    pub user: String,
    /// Stop signal; empty means SIGTERM.
    pub stop_signal: String,
    /// The test of its health check; empty if it has none.
    pub healthcheck: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Docker {
    /// Looks at an image by reference or id; `None` if the engine does not have it.
    pub fn image(&self, reference: &str) -> Result<Option<Image>, DockerError> {
        let reference = name::image(reference)?;
        let call = Call::read("inspect the image", "IMAGES");
        let Some(found) = optional(self.ask(call, reference, self.client.inspect_image(reference)))? else {
            return Ok(None);
        };
        let config = found.config.unwrap_or_default();
        Ok(Some(Image {
            id: found.id.unwrap_or_default(),
            repo_tags: found.repo_tags.unwrap_or_default(),
            repo_digests: found.repo_digests.unwrap_or_default(),
            size_bytes: found.size.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
            created: found.created.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            healthcheck: config.healthcheck.and_then(|h| h.test).unwrap_or_default(),
            exposed_ports: config.exposed_ports.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
        }))
    }

    /// Pulls an image. Reports the bytes downloaded so far and in total, as far as the registry tells.
    pub fn pull(&self, reference: &str, progress: &Progress<'_>) -> Result<(), DockerError> {
        let reference = name::image(reference)?;
        let (repository, tag) = name::split(reference);
        let options = CreateImageOptions {
            from_image: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let call = Call { doing: "pull the image", section: "POST and IMAGES", limit: SILENT };
        let mut stream = self.client.create_image(Some(options), None, credentials::find(reference)?);
        // Per layer: bytes done and in total.
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        let refused = |e: DockerError| match e {
            DockerError::Other { why, .. } | DockerError::Conflict { why, .. } => {
                DockerError::PullFailed { reference: reference.to_owned(), why }
            }
            DockerError::NoSuch { .. } | DockerError::ImageMissing { .. } => DockerError::PullFailed {
                reference: reference.to_owned(),
                why: "the registry does not have it, or wants a login (docker login)".to_owned(),
            },
            other => other,
        };
        self.runtime.block_on(async {
            let mut silent = Duration::ZERO;
            loop {
                if (progress.cancel)() {
                    return Err(DockerError::Cancelled);
                }
                let part = match tokio::time::timeout(LOOK, stream.next()).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(part)) => part.map_err(|e| refused(self.failed(call, reference, &e)))?,
                    Err(_) if silent >= SILENT => {
                        return Err(DockerError::Timeout { doing: call.doing, limit: SILENT });
                    }
                    Err(_) => {
                        silent += LOOK;
                        continue;
                    }
                };
                silent = Duration::ZERO;
                if part.status.as_deref() == Some("Downloading")
                    && let (Some(layer), Some(detail)) = (part.id, part.progress_detail)
                {
                    let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
                    layers.insert(layer, (bytes(detail.current), bytes(detail.total)));
                    let (done, total) =
                        layers.values().fold((0, 0), |(d, t), (done, total)| (d + done, t + total));
                    (progress.report)(done, total);
                }
            }
        })?;
        // The end of the stream is not success: an engine that stops ends it, too.
        match self.image(reference)? {
            Some(_) => Ok(()),
            None => Err(DockerError::PullFailed {
                reference: reference.to_owned(),
                why: "the engine ended the download without an error and without the image".to_owned(),
            }),
        }
    }

    /// Gives an image another name.
    pub fn tag(&self, id: &str, repository: &str, tag: &str) -> Result<(), DockerError> {
        let id = name::image(id)?;
        let options = TagImageOptions {
            repo: Some(name::image(repository)?.to_owned()),
            tag: Some(name::object("tag", tag)?.to_owned()),
        };
        self.ask(
            Call::change("tag the image", "POST and IMAGES"),
            id,
            self.client.tag_image(id, Some(options)),
        )
    }

    /// Takes a name off an image, and removes it if that was its last name and nothing uses it. Fine if it is gone.
    pub fn untag(&self, reference: &str) -> Result<(), DockerError> {
        let reference = name::image(reference)?;
        let options = RemoveImageOptions { force: false, ..RemoveImageOptions::default() };
        let call = Call::remove("remove the image", "POST and IMAGES");
        let answer = self.ask(call, reference, self.client.remove_image(reference, Some(options), None));
        done_or_gone(answer.map(|_| ()))
    }

    /// Images that carry all the labels: id and names.
    pub fn images(&self, labels: &[(&str, &str)]) -> Result<Vec<(String, Vec<String>)>, DockerError> {
        let options =
            ListImagesOptions { filters: Some(super::with_labels(labels)), ..ListImagesOptions::default() };
        let call = Call::read("list images of", "IMAGES");
        let found = self.ask(call, "the engine", self.client.list_images(Some(options)))?;
        let mut all: Vec<_> = found.into_iter().map(|i| (i.id, i.repo_tags)).collect();
        all.sort();
        Ok(all)
    }

    /// The names, with their tags, that images have in a repository.
    pub fn image_names(&self, repository: &str) -> Result<Vec<String>, DockerError> {
        let repository = name::image(repository)?;
        let filters = HashMap::from([("reference".to_owned(), vec![repository.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let call = Call::read("list images of", "IMAGES");
        let found = self.ask(call, repository, self.client.list_images(Some(options)))?;
        let prefix = format!("{repository}:");
        let mut names: Vec<String> =
            found.into_iter().flat_map(|i| i.repo_tags).filter(|name| name.starts_with(&prefix)).collect();
        names.sort();
        Ok(names)
    }

    /// Makes an image of one layer from a tar archive. `changes` are instructions as in a Dockerfile
    /// (`LABEL a=b`). Returns its id.
    pub fn import_tar(
        &self,
        tar: impl Read + Send,
        reference: &str,
        changes: &[String],
    ) -> Result<String, DockerError> {
        let (repository, tag) = name::split(name::image(reference)?);
        let call = Call { doing: "import the image", section: "POST and IMAGES", limit: SILENT };
        if changes.iter().any(|c| c.contains('\n')) {
            return Err(DockerError::Other {
                doing: call.doing,
                what: reference.to_owned(),
                why: "a change holds a line break".to_owned(),
            });
        }
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
            changes: changes.to_vec(),
            ..CreateImageOptions::default()
        };
        let mut tar = tar;
        std::thread::scope(|scope| {
            let (sender, Fed { chunks, broke }) = Fed::channel();
            scope.spawn(|| feed(&mut tar, sender));
            let body = bollard::body_try_stream(fed(chunks));
            let import = async {
                let mut id = None;
                let mut stream = self.client.create_image(Some(options), Some(body), None);
                while let Some(part) = stream.next().await {
                    id = part?.status.filter(|s| s.starts_with("sha256:")).or(id);
                }
                Ok::<_, Answer>(id)
            };
            // The whole import has the limit of a silent pull: helper images are small.
            let answer = self.ask(call, reference, import);
            if let Some(source) = broke.lock().ok().and_then(|mut b| b.take()) {
                return Err(DockerError::Stream { doing: "read the archive of an image", source });
            }
            answer?.ok_or_else(|| DockerError::Other {
                doing: call.doing,
                what: reference.to_owned(),
                why: "the engine did not say what it made".to_owned(),
            })
        })
    }
}
