//! Images as archives: saving one, and loading it on another engine.

use super::error::Call;
use super::stream::{Fed, fed, feed};
use super::{Docker, DockerError, name};
use crate::store::Progress;
use bollard::errors::Error as Answer;
use bollard::query_parameters::ImportImageOptions;
use futures_util::StreamExt as _;
use std::io::{Read, Write};
use std::time::Duration;

/// After so long without a byte it is given up.
const SILENT: Duration = Duration::from_secs(300);
/// An engine says nothing while it unpacks what it is given.
const LOADING: Duration = Duration::from_secs(3600);
/// How often cancelling is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Docker {
    /// Writes an image with all its layers as a tar archive, as `docker image save` does. Returns the bytes.
    pub fn save_image(
        &self,
        id: &str,
        out: &mut dyn Write,
        progress: &Progress<'_>,
    ) -> Result<u64, DockerError> {
        let id = name::image(id)?;
        let call = Call { doing: "save the image", section: "IMAGES", limit: SILENT };
        let broke = |source| DockerError::Stream { doing: "write the archive of an image", source };
        let mut stream = std::pin::pin!(self.client.export_image(id));
        self.runtime.block_on(async {
            let (mut silent, mut bytes) = (Duration::ZERO, 0);
            loop {
                if (progress.cancel)() {
                    return Err(DockerError::Cancelled);
                }
                match tokio::time::timeout(LOOK, stream.next()).await {
                    Ok(None) => break,
                    Ok(Some(part)) => {
                        let part = part.map_err(|e| self.failed(call, id, &e))?;
                        out.write_all(&part).map_err(broke)?;
                        bytes += part.len() as u64;
                        (progress.report)(bytes, 0);
                        silent = Duration::ZERO;
                    }
                    Err(_) if silent >= SILENT => {
                        return Err(DockerError::Timeout { doing: call.doing, limit: SILENT });
                    }
                    Err(_) => silent += LOOK,
                }
            }
            out.flush().map_err(broke)?;
            Ok(bytes)
        })
    }

    /// Loads what [`Docker::save_image`] wrote. The engine ends without an error on an archive that is cut short: look for the image
    /// afterwards.
    pub fn load_image(&self, tar: impl Read + Send) -> Result<(), DockerError> {
        let call = Call { doing: "load the image", section: "POST and IMAGES", limit: LOADING };
        let mut tar = tar;
        std::thread::scope(|scope| {
            let (sender, Fed { chunks, broke }) = Fed::channel();
            scope.spawn(|| feed(&mut tar, sender));
            let body = bollard::body_try_stream(fed(chunks));
            let load = async {
                let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
                let mut stream = std::pin::pin!(self.client.import_image(options, body, None));
                while let Some(part) = stream.next().await {
                    part?;
                }
                Ok::<_, Answer>(())
            };
            let answer = self.ask(call, "an archive", load);
            if let Some(source) = broke.lock().ok().and_then(|mut b| b.take()) {
                return Err(DockerError::Stream { doing: "read the archive of an image", source });
            }
            answer
        })
    }
}
