//! Masking personal data in the databases of a copy.
//!
//! Owns what is done around a Postgres server: it is stopped, its log of writes is begun anew, and files with texts of
//! statements are removed. It must never work on a mount that is not scratch.

use super::mounts::{live_volumes, parts};
use super::server::Server;
use super::{ComposeData, Work, no_columns, owned, place};
use crate::docker::ScratchVolume;
use crate::docker::hands::{Hands, Scratch, ScratchDir};
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::Placement;
use crate::store::postgres::{self, LEFT_BEHIND};
use switchback_core::anonymise::{Key, MaskedStore, Rule};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::{MountPlace, StorePlace};

/// Removes all segments of the log of writes and begins another one. The programs of a server are not on the path of every image.
const RESET: &str = "PATH=\"$PATH:$(echo /usr/lib/postgresql/*/bin | tr ' ' :)\"; exec pg_resetwal -D \"$0\"";

/// A mount that may be written to, and the path of its content below it.
pub(super) enum Place {
    Volume(ScratchVolume),
    Dir(ScratchDir, String),
}

impl Place {
    pub(super) fn scratch(&self) -> Scratch<'_> {
        match self {
            Self::Volume(volume) => Scratch::Volume(volume),
            Self::Dir(dir, _) => Scratch::Dir(dir),
        }
    }

    pub(super) fn below(&self, path: &str) -> String {
        let parts = match self {
            Self::Volume(_) => ["", path],
            Self::Dir(_, name) => [name.as_str(), path],
        };
        parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/")
    }
}

impl ComposeData {
    pub(super) fn mask_store(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        rules: &[Rule],
        key: &Key,
        work: &Work<'_>,
    ) -> Result<MaskedStore, EngineError> {
        let (place, mount) = place(at, store)?;
        let hands = self.hands(at.home)?;
        let scratch = self.scratch_place(at.home, &hands, mount)?;
        match place.kind {
            StoreKind::Files => Err(no_columns(store)),
            StoreKind::Mysql => Err(EngineError::refused(
                format!("{store}: columns of MySQL and MariaDB cannot be masked"),
                "remove its rules from `staging.anonymise`; staging then has its values as they are",
            )),
            StoreKind::Sqlite => {
                Ok(hands.mask(scratch.scratch(), &scratch.below(&place.path), rules, key, work.progress)?)
            }
            StoreKind::Postgres => {
                let server = Server::open(self, at, store, mount, CloneMode::Cold)?;
                let done = postgres::mask(&server, server.databases(), rules, key, work.progress);
                let done = server.close(done)?;
                self.forget_writes(at, place, mount, &hands)?;
                let folders: Vec<String> =
                    LEFT_BEHIND
                        .iter()
                        .map(|f| {
                            if place.path.is_empty() {
                                (*f).to_owned()
                            } else {
                                format!("{}/{f}", place.path)
                            }
                        })
                        .map(|f| scratch.below(&f))
                        .collect();
                hands.empty_folders(scratch.scratch(), &folders)?;
                Ok(done)
            }
        }
    }

    pub(super) fn scratch_place(
        &self,
        home: &Home,
        hands: &Hands<'_>,
        mount: &MountPlace,
    ) -> Result<Place, EngineError> {
        let gone = || EngineError::Internal { detail: "what is to be written to is not there".to_owned() };
        match mount {
            MountPlace::Volume(name) => {
                let live = live_volumes(home)?;
                let live: Vec<&str> = live.iter().map(String::as_str).collect();
                let volume = self.docker.scratch_volume(name, &home.id()?, &live)?;
                Ok(Place::Volume(volume.ok_or_else(gone)?))
            }
            MountPlace::Dir(path) => {
                let (beside, suffix) = parts(path)?;
                let dir = hands.scratch_open(beside, suffix)?.ok_or_else(gone)?;
                let name = path.rsplit_once('/').map_or("", |(_, name)| name);
                Ok(Place::Dir(dir, name.to_owned()))
            }
        }
    }

    /// Begins the log of writes anew: its segments hold what was masked. The server has stopped.
    fn forget_writes(
        &self,
        at: &Placement<'_>,
        place: &StorePlace,
        mount: &MountPlace,
        hands: &Hands<'_>,
    ) -> Result<(), EngineError> {
        let missing = || EngineError::Internal { detail: "a store without a server".to_owned() };
        let reached = place.server.as_ref().ok_or_else(missing)?;
        let owner = hands
            .list((mount, &place.path))?
            .into_iter()
            .find(|e| e.name == "PG_VERSION")
            .ok_or_else(missing)?;
        let data = format!("{}/{}", reached.target.trim_end_matches('/'), place.path);
        let owner = format!("{}:{}", owner.uid, owner.gid);
        let arguments = vec![data.trim_end_matches('/').to_owned()];
        let spec = owned::script(at, reached, (mount, &owner), RESET, arguments)?;
        let mut out = Vec::new();
        let ended = self.docker.run(&spec, None, &mut out, &|| false)?;
        if ended.code != 0 {
            return Err(EngineError::refused(
                format!("the log of writes of the copy cannot be begun anew: {}", ended.stderr_tail.trim()),
                "without that, what was masked could be read in it; the image must have pg_resetwal",
            ));
        }
        Ok(())
    }
}
