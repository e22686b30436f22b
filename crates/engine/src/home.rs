//! Where things lie: the stack's folder and its state folder `.switchback`.
//!
//! Owns paths and the small JSON files (pointer, generations, releases). Knows nothing of processes.

use crate::error::{EngineError, io};
use rustix::fs::{Mode, OFlags};
use serde::{Serialize, de::DeserializeOwned};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use switchback_core::config::Config;
use switchback_core::ids::{Digest, GenerationId, RunId};
use switchback_core::release::{FORMAT, Generation, Instance, Pointer, Release};

/// The name of the configuration file.
pub const CONFIG_FILE: &str = "switchback.yaml";
/// The name of the state folder.
pub const STATE_DIR: &str = ".switchback";

/// The list of files that a command made outside of the state.
const TEMPORARY_FILE: &str = "temporary.json";
/// How the names of such files begin.
pub const TEMPORARY_PREFIX: &str = ".switchback-desired-";

/// Space kept aside in the state folder.
const RESERVE_FILE: &str = "reserve";
/// Enough for the journal of an undo, the shim's state and the first writes of the service that is started
/// again; small against any stack.
const RESERVE_BYTES: u64 = 8 << 20;
/// With less than this, SQLite cannot make the files that it needs for reading.
const FULL_BYTES: u64 = 1 << 20;

/// A stack on disk.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Opens the stack whose `switchback.yaml` lies in `dir`.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let root = match dir.canonicalize() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(EngineError::NoConfig { dir: dir.to_owned() });
            }
            other => other.map_err(io("open the stack's folder", dir))?,
        };
        if !root.join(CONFIG_FILE).is_file() {
            return Err(EngineError::NoConfig { dir: root });
        }
        Ok(Self { root })
    }

    /// A folder that is not a stack yet, for describing it.
    pub fn future(dir: &Path) -> Result<Self, EngineError> {
        Ok(Self { root: dir.canonicalize().map_err(io("open the folder", dir))? })
    }

    /// The stack's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// `switchback.yaml`.
    pub fn config_file(&self) -> PathBuf {
        self.root.join(CONFIG_FILE)
    }
    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.root.join(STATE_DIR)
    }
    /// The folder of a run.
    pub fn run_dir(&self, run: &RunId) -> PathBuf {
        self.state().join("runs").join(run.as_str())
    }
    /// The folder of an instance.
    pub fn instance_dir(&self, instance: &Instance) -> PathBuf {
        self.state().join(&instance.dir)
    }
    /// The folder that holds what was written to an abandoned generation.
    pub fn export_dir(&self, generation: GenerationId) -> PathBuf {
        self.state().join("exports").join(format!("generation-{generation}"))
    }

    /// Makes the state folder (only the owner may read it: it holds configuration).
    pub fn create_state(&self) -> Result<(), EngineError> {
        for dir in ["", "runs", "generations", "staging", "releases", "exports"] {
            let path = self.state().join(dir);
            if !path.is_dir() {
                create_dir(&path)?;
            }
        }
        let id = self.state().join("id");
        if !id.exists() {
            write_atomic(&id, ulid::Ulid::generate().to_string().as_bytes())?;
        }
        Ok(())
    }

    /// What a backup brought of the time before: the journal, and the exports of later writes.
    pub fn before(&self) -> PathBuf {
        self.state().join("before")
    }

    /// Keeps some space aside, so that a run can be undone and recorded on a disk that it filled up.
    ///
    /// Not being able to is no reason to refuse: the preflight of every run looks at the free space.
    pub fn keep_reserve(&self) {
        let path = self.state().join(RESERVE_FILE);
        let enough = fs::metadata(&path).is_ok_and(|m| m.len() >= RESERVE_BYTES);
        if enough {
            return;
        }
        if let Ok(file) = fs::File::create(&path) {
            let flags = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES).is_err() {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Whether the state's file system is full: not even the journal can be opened then.
    pub fn is_full(&self) -> bool {
        crate::gather::free_bytes(&self.state()).is_ok_and(|free| free < FULL_BYTES)
    }

    /// Gives the reserve up; true if there was one.
    pub fn release_reserve(&self) -> bool {
        fs::remove_file(self.state().join(RESERVE_FILE)).is_ok()
    }

    /// Remembers files outside of the state that a command is about to make for itself: [`Home::sweep`] removes them if
    /// it is killed.
    pub fn remember_temporary(&self, files: &[PathBuf]) -> Result<(), EngineError> {
        write_json(&self.state().join(TEMPORARY_FILE), &files)
    }

    /// Removes what a killed command left outside of the state. Only for the holder of the stack's lock.
    pub fn sweep(&self) {
        let path = self.state().join(TEMPORARY_FILE);
        let Ok(files) = read_json::<Vec<PathBuf>>(&path) else { return };
        for folder in files.iter().filter_map(|f| f.parent()) {
            // Also one that was only half written and has another name.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        let _ = fs::remove_file(path);
    }

    /// An identifier of this stack at this place; part of every process marker.
    ///
    /// The place is in it, so that a copy of the folder never takes the original's processes for its own.
    pub fn id(&self) -> Result<String, EngineError> {
        let path = self.state().join("id");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let place = Digest::of(self.root.as_os_str().as_encoded_bytes());
                Ok(format!("{}-{}", text.trim(), place.short()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::from("unborn")),
            Err(e) => Err(io("read", &path)(e)),
        }
    }

    /// Reads and checks the configuration as it is written; `world::config` completes it.
    pub fn config(&self) -> Result<Config, EngineError> {
        let path = self.config_file();
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        Ok(Config::parse(&text, CONFIG_FILE)?)
    }

    /// The configuration as it was when a run was planned.
    pub fn run_config(&self, run: &RunId) -> Result<Config, EngineError> {
        let path = self.run_dir(run).join(CONFIG_FILE);
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        Ok(Config::parse_kept(&text, &path.to_string_lossy())?)
    }

    /// Which generation is production's; `None` before the first `up`.
    pub fn pointer(&self) -> Result<Option<Pointer>, EngineError> {
        let path = self.state().join("current.json");
        if !path.exists() {
            return Ok(None);
        }
        let pointer: Pointer = read_json(&path)?;
        check_format(&path, pointer.format)?;
        Ok(Some(pointer))
    }

    /// Moves the pointer, or removes it.
    pub fn set_pointer(&self, pointer: Option<&Pointer>) -> Result<(), EngineError> {
        let path = self.state().join("current.json");
        match pointer {
            Some(pointer) => write_json(&path, pointer),
            None => match fs::remove_file(&path) {
                Ok(()) => sync_dir(&self.state()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(io("remove", &path)(e)),
            },
        }
    }

    fn generation_file(&self, id: GenerationId) -> PathBuf {
        self.state().join("generations").join(id.to_string()).join("generation.json")
    }

    /// A generation as recorded.
    pub fn generation(&self, id: GenerationId) -> Result<Generation, EngineError> {
        let path = self.generation_file(id);
        if !path.exists() {
            return Err(EngineError::UnknownGeneration { id, known: self.generation_ids()? });
        }
        let generation: Generation = read_json(&path)?;
        check_format(&path, generation.format)?;
        Ok(generation)
    }

    /// Records a generation.
    pub fn save_generation(&self, generation: &Generation) -> Result<(), EngineError> {
        write_json(&self.generation_file(generation.instance.generation), generation)
    }

    /// The numbers of all generations on disk, ascending.
    pub fn generation_ids(&self) -> Result<Vec<GenerationId>, EngineError> {
        let dir = self.state().join("generations");
        let mut ids = Vec::new();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(ids),
            Err(e) => return Err(io("list", &dir)(e)),
        };
        for entry in entries {
            let entry = entry.map_err(io("list", &dir))?;
            if let Some(number) = entry.file_name().to_str().and_then(|n| n.parse().ok())
                && entry.path().join("generation.json").exists()
            {
                ids.push(GenerationId(number));
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The number of the generation that is made next: one that neither exists nor has left exported writes behind, since
    /// those are told by it.
    pub fn next_generation(&self, current: GenerationId) -> Result<GenerationId, EngineError> {
        let known = self.generation_ids()?.last().copied().unwrap_or(current);
        let exported = fs::read_dir(self.state().join("exports")).into_iter().flatten().flatten();
        let exported =
            exported.filter_map(|e| e.file_name().to_str()?.strip_prefix("generation-")?.parse().ok());
        let highest = exported.chain([known.0, current.0]).max().unwrap_or(current.0);
        Ok(GenerationId(highest + 1))
    }

    /// The folder of a stored release.
    pub fn release_dir(&self, id: &Digest) -> PathBuf {
        self.state().join("releases").join(&id.0)
    }

    /// Reads a stored release and confirms that its content is what its name says.
    pub fn release(&self, id: &Digest) -> Result<Release, EngineError> {
        let path = self.release_dir(id).join("release.json");
        let release: Release = read_json(&path)?;
        check_format(&path, release.format)?;
        if &release.id() != id {
            return Err(EngineError::Damaged {
                what: path,
                detail: "its content does not match its name".to_owned(),
            });
        }
        Ok(release)
    }
}

/// Refuses a file that a newer program wrote.
pub fn check_format(path: &Path, found: u32) -> Result<(), EngineError> {
    if found > FORMAT {
        return Err(EngineError::NewerFormat { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(())
}

/// Makes a folder and its parents, readable by the owner only.
pub fn create_dir(path: &Path) -> Result<(), EngineError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create the folder", path))
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EngineError> {
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    // A newer format may have another shape; say so rather than complain about the shape.
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text)
        && let Some(found) = value.get("format").and_then(serde_json::Value::as_u64)
    {
        check_format(path, u32::try_from(found).unwrap_or(u32::MAX))?;
    }
    serde_json::from_str(&text)
        .map_err(|e| EngineError::Damaged { what: path.to_owned(), detail: e.to_string() })
}

/// Replaces a JSON file atomically.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| EngineError::Internal { detail: format!("cannot write {}: {e}", path.display()) })?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Replaces a JSON file atomically, without waiting for the disk: for what means nothing after a power failure
/// (which processes run, and how).
pub fn write_json_volatile<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let text = serde_json::to_vec(value)
        .map_err(|e| EngineError::Internal { detail: format!("cannot write {}: {e}", path.display()) })?;
    let temp = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?
            .write_all(&text)?;
        fs::rename(&temp, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temp);
        io("write", path)(e)
    })
}

/// Makes a secret of 256 random bits and keeps it in a file, hexadecimal, for its owner alone.
pub fn make_secret(path: &Path) -> Result<[u8; 32], EngineError> {
    let mut bytes = [0; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if got.map_err(|e| io("make random bytes for", path)(e.into()))? != bytes.len() {
        return Err(EngineError::Internal { detail: "the system gave too few random bytes".to_owned() });
    }
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    write_atomic(path, hex.as_bytes())?;
    Ok(bytes)
}

/// Replaces a file atomically and durably: temporary file, fsync, rename, fsync of the folder. Mode 600.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let temp = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temp);
        io("write", path)(e)
    })?;
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes renames and removals in a folder durable.
pub fn sync_dir(dir: &Path) -> Result<(), EngineError> {
    let open = || -> std::io::Result<()> {
        let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(fd)?)
    };
    open().map_err(io("sync", dir))
}
