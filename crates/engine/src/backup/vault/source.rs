//! What goes into a snapshot: folders and files of this host, under other names; nothing is left out in silence.

use super::root;
use crate::store::escape;
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::Node;
use rustic_core::{
    ErrorKind, Excludes, LocalSource, LocalSourceFilterOptions, LocalSourceSaveOptions, ReadSource,
    ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult,
};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use switchback_core::backup::Part;

/// What was seen while the snapshot was written: the library goes on after errors, and so does not tell them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Files that should be in the snapshot, with their sizes.
    pub files: BTreeMap<PathBuf, u64>,
    /// What could not be read of what does not change.
    pub broken: Vec<String>,
    /// What vanished from, or could not be read of, what is in use.
    pub left_out: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Record(Arc<Mutex<Seen>>);

impl Record {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, path: &Path, live: bool, why: &str) {
        let mut seen = self.lock();
        seen.files.remove(path);
        let text = format!("{}: {why}", path.display());
        if live { seen.left_out.push(text) } else { seen.broken.push(text) }
    }
}

/// The parts as the library reads them.
pub(super) struct Parts {
    parts: Vec<(Part, LocalSource)>,
    record: Record,
}

impl Parts {
    pub(super) fn new(mut parts: Vec<Part>, record: Record) -> RusticResult<Self> {
        // Folders of the snapshot follow each other as they are sorted.
        parts.sort_by(|a, b| Path::new(&a.logical).cmp(Path::new(&b.logical)));
        let with_source = |part: Part| {
            let source = LocalSource::new(
                LocalSourceSaveOptions::default(),
                &Excludes::default(),
                &LocalSourceFilterOptions::default(),
                &[Path::new(&part.real)],
            )?;
            Ok((part, source))
        };
        Ok(Self { parts: parts.into_iter().map(with_source).collect::<RusticResult<_>>()?, record })
    }
}

type LocalOpen = <LocalSource as ReadSource>::Open;

/// A file to be read; errors are written down.
pub(super) struct Open {
    inner: LocalOpen,
    path: PathBuf,
    live: bool,
    record: Record,
}

/// A file that is read.
pub(super) struct Reader {
    inner: <LocalOpen as ReadSourceOpen>::Reader,
    path: PathBuf,
    live: bool,
    record: Record,
}

impl ReadSourceOpen for Open {
    type Reader = Reader;
    fn open(self) -> RusticResult<Reader> {
        match self.inner.open() {
            Ok(inner) => Ok(Reader { inner, path: self.path, live: self.live, record: self.record }),
            Err(e) => {
                self.record.failed(&self.path, self.live, &e.display_log());
                Err(e)
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer);
        if let Err(e) = &got
            && e.kind() != io::ErrorKind::Interrupted
        {
            self.record.failed(&self.path, self.live, &e.to_string());
        }
        got
    }
}

/// The name in the snapshot of what lies below a part.
fn renamed(part: &Part, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(&part.real).ok()?;
    let logical = Path::new(&part.logical);
    Some(if below.as_os_str().is_empty() { logical.to_owned() } else { logical.join(below) })
}

impl ReadSource for Parts {
    type Open = Open;
    type Iter = Box<dyn Iterator<Item = RusticResult<ReadSourceEntry<Open>>> + Send>;

    fn size(&self) -> RusticResult<Option<u64>> {
        let mut total = 0;
        for (part, source) in &self.parts {
            for entry in source.entries() {
                // What cannot be looked at is told when it is read.
                let Ok(entry) = entry else { continue };
                if !left_out(part, &entry.path) && entry.node.is_file() {
                    total += entry.node.meta.size;
                }
            }
        }
        Ok(Some(total))
    }

    fn entries(&self) -> Self::Iter {
        let all = self.parts.iter().map(|(part, source)| {
            let (part, record) = (part.clone(), self.record.clone());
            let root = root_of(&part, &record);
            root.into_iter().chain(source.entries().filter_map(move |entry| named(&part, &record, entry)))
        });
        let all: Vec<_> = all.collect();
        Box::new(all.into_iter().flatten())
    }
}

fn left_out(part: &Part, path: &Path) -> bool {
    part.except.iter().any(|e| path.starts_with(e))
}

/// The folder that a part is, which the library passes over.
fn root_of(part: &Part, record: &Record) -> Option<RusticResult<ReadSourceEntry<Open>>> {
    let path = PathBuf::from(&part.logical);
    match root::node(Path::new(&part.real), path.file_name()?) {
        Ok(node) => node.map(|node| Ok(ReadSourceEntry { path, node, open: None })),
        Err(e) => {
            record.failed(&path, part.live, &e.to_string());
            Some(Err(RusticError::with_source(
                ErrorKind::InputOutput,
                "a folder that cannot be looked at",
                e,
            )))
        }
    }
}

fn named(
    part: &Part,
    record: &Record,
    entry: RusticResult<ReadSourceEntry<LocalOpen>>,
) -> Option<RusticResult<ReadSourceEntry<Open>>> {
    let entry = match entry {
        Ok(entry) => entry,
        Err(e) => {
            record.failed(Path::new(&part.logical), part.live, &e.display_log());
            return Some(Err(e));
        }
    };
    if left_out(part, &entry.path) {
        return None;
    }
    let Some(path) = renamed(part, &entry.path) else {
        record.failed(&entry.path, part.live, "it does not lie where it should");
        return Some(Err(RusticError::new(ErrorKind::Internal, "a path outside of its part")));
    };
    let mut node = entry.node;
    if Path::new(&part.real) == entry.path
        && let Some(name) = path.file_name()
    {
        // The root of a part has another name in the snapshot.
        node = Node::new_node(name, node.node_type, node.meta);
    }
    if node.is_file() {
        if let Some(mark) = entry
            .path
            .strip_prefix(&part.real)
            .ok()
            .and_then(|below| part.marks.get(&escape(below.as_os_str().as_bytes())))
        {
            // The library compares it with that of the snapshot before, beside size and time of the last change. A clone's own says
            // nothing: every clone has another one.
            node.meta.ctime = Timestamp::from_nanosecond(i128::from(*mark)).ok();
        }
        record.lock().files.insert(path.clone(), node.meta.size);
    }
    let open =
        entry.open.map(|inner| Open { inner, path: path.clone(), live: part.live, record: record.clone() });
    Some(Ok(ReadSourceEntry { path, node, open }))
}
