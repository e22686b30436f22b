//! The helper image: the running program itself as an image, so that helpers need no registry.
//!
//! Owns what goes into it: the program, its loader, and the libraries that the loader finds; nothing else. The
//! image is named after its content, so that a program only ever works with its own helpers.

use super::{Docker, DockerError, HELPER_LABEL};
use crate::exec::{self, Exec};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The repository of helper images.
const REPOSITORY: &str = "switchback-helper";
/// Where the program lies in the image.
pub const PROGRAM: &str = "/switchback";
/// Hexadecimal digits of the content's hash in the tag: 48 bits tell the versions of one host apart.
const DIGITS: usize = 12;
/// Listing libraries reads a few files.
const LIST: Duration = Duration::from_secs(30);
/// A path of a loader is short; a longer one is no program for this system.
const LONGEST_LOADER: u64 = 4096;

/// The helper images of one repository.
#[derive(Debug, Clone)]
pub struct HelperImages {
    repository: String,
}

impl Default for HelperImages {
    fn default() -> Self {
        Self { repository: REPOSITORY.to_owned() }
    }
}

/// Makes the helper image of a program, if the engine does not have it. Returns its id.
pub fn ensure(docker: &Docker, program: &Path) -> Result<String, DockerError> {
    HelperImages::default().ensure(docker, program)
}

/// Removes helper images of other versions, but not those in use. Returns how many were removed.
pub fn prune_helpers(docker: &Docker, keep: &str) -> Result<usize, DockerError> {
    HelperImages::default().prune(docker, keep)
}

/// The program that runs now, by a path that leads to it even after its file was replaced.
pub fn this_program() -> PathBuf {
    // Not `/proc/self`: the loader that is asked below is another process.
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

impl HelperImages {
    /// Those of another repository than the usual one.
    pub fn named(repository: &str) -> Self {
        Self { repository: repository.to_owned() }
    }

    /// Like [`ensure`].
    pub fn ensure(&self, docker: &Docker, program: &Path) -> Result<String, DockerError> {
        let parts = Parts::of(program)?;
        let reference = format!("{}:{}", self.repository, parts.digest(program)?);
        if let Some(found) = docker.image(&reference)?
            && found.labels.contains_key(HELPER_LABEL)
        {
            return Ok(found.id);
        }
        let mut changes = vec![format!("LABEL {HELPER_LABEL}=1"), format!("ENTRYPOINT [\"{PROGRAM}\"]")];
        if let Some(path) = parts.library_path() {
            changes.push(format!("ENV LD_LIBRARY_PATH={path}"));
        }
        let piped = |source| DockerError::Stream { doing: "make a pipe", source };
        std::thread::scope(|scope| {
            let (reader, writer) = io::pipe().map_err(piped)?;
            let packed = scope.spawn(|| parts.pack(writer));
            let imported = docker.import_tar(reader, &reference, &changes);
            let packed = packed.join().unwrap_or_else(|_| Err(io::Error::other("packing panicked")));
            match (imported, packed) {
                (Err(e), Err(packing)) if packing.kind() == io::ErrorKind::BrokenPipe => Err(e),
                (_, Err(source)) => Err(DockerError::Stream { doing: "pack the helper image", source }),
                (imported, Ok(())) => imported,
            }
        })
    }

    /// Like [`ensure`], where the image is known from before: looks only whether it is still there. `gc` of another stack, with
    /// another version of this program, removes images that no container has.
    pub fn ensure_known(
        &self,
        docker: &Docker,
        program: &Path,
        known: &mut Option<String>,
    ) -> Result<String, DockerError> {
        if let Some(image) = known.as_ref()
            && docker.image(image)?.is_some()
        {
            return Ok(image.clone());
        }
        Ok(known.insert(self.ensure(docker, program)?).clone())
    }

    /// Like [`prune_helpers`].
    pub fn prune(&self, docker: &Docker, keep: &str) -> Result<usize, DockerError> {
        let mut removed = 0;
        for (id, names) in docker.images(&[(HELPER_LABEL, "1")])? {
            if id == keep {
                continue;
            }
            // One without a name is left where two programs made the same image at the same time.
            let nameless = names.iter().all(|name| name == "<none>:<none>");
            let own = names.iter().filter(|name| name.split(':').next() == Some(self.repository.as_str()));
            let wanted: Vec<&String> = if nameless { vec![&id] } else { own.collect() };
            for name in wanted {
                match docker.untag(name) {
                    Ok(()) => removed += 1,
                    // A helper of another stack is at work; the next time will do.
                    Err(DockerError::Conflict { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(removed)
    }
}

/// The files of an image: path in it, file here.
struct Parts {
    files: BTreeMap<String, PathBuf>,
}

fn unfit(program: &Path, why: impl Into<String>) -> DockerError {
    DockerError::Helper { program: program.display().to_string(), why: why.into() }
}

impl Parts {
    fn of(program: &Path) -> Result<Self, DockerError> {
        let mut files = BTreeMap::from([(PROGRAM.to_owned(), program.to_owned())]);
        let loader = loader(program).map_err(|e| unfit(program, e.to_string()))?;
        if let Some(loader) = loader {
            let argv = [loader.as_ref(), Path::new("--list"), program];
            let output = exec::run(&Exec::new(argv, LIST)).map_err(|e| unfit(program, e.to_string()))?;
            if !output.success() {
                return Err(unfit(
                    program,
                    format!("{loader} --list: {} {}", output.how(), output.stderr_tail),
                ));
            }
            for path in libraries(&output.stdout_tail).map_err(|why| unfit(program, why))? {
                files.insert(path.clone(), PathBuf::from(path));
            }
            files.insert(loader.clone(), PathBuf::from(loader));
        }
        Ok(Self { files })
    }

    /// Names the content: paths, lengths and bytes.
    fn digest(&self, program: &Path) -> Result<String, DockerError> {
        let mut hasher = blake3::Hasher::new();
        for (path, file) in &self.files {
            let read = || -> io::Result<()> {
                let file = File::open(file)?;
                hasher.update(path.as_bytes()).update(&[0]).update(&file.metadata()?.len().to_le_bytes());
                hasher.update_reader(file)?;
                Ok(())
            };
            let mut read = read;
            read().map_err(|e| unfit(program, format!("cannot read {}: {e}", file.display())))?;
        }
        Ok(hasher.finalize().to_hex()[..DIGITS].to_owned())
    }

    /// Where the loader looks besides its own folders; it has no cache in the image.
    fn library_path(&self) -> Option<String> {
        let mut dirs: Vec<&str> =
            self.files.keys().filter_map(|p| p.rsplit_once('/')).map(|(dir, _)| dir).collect();
        dirs.retain(|dir| !dir.is_empty());
        dirs.sort_unstable();
        dirs.dedup();
        (!dirs.is_empty()).then(|| dirs.join(":"))
    }

    /// Writes the archive. It is the same for the same files.
    fn pack(&self, to: impl io::Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        for (path, file) in &self.files {
            let file = File::open(file)?;
            let mut header = tar::Header::new_gnu();
            header.set_size(file.metadata()?.len());
            header.set_mode(0o755);
            header.set_mtime(0);
            header.set_entry_type(tar::EntryType::Regular);
            archive.append_data(&mut header, path.trim_start_matches('/'), file)?;
        }
        archive.into_inner().map(drop)
    }
}

/// The paths in a loader's list; a missing one is an error.
fn libraries(list: &str) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    for line in list.lines() {
        let line = line.trim();
        if line.ends_with("not found") {
            return Err(format!("a library is missing: {line}"));
        }
        let target = line.split_once("=>").map_or(line, |(_, target)| target.trim());
        let path = target.rsplit_once(" (").map_or(target, |(path, _)| path);
        if path.starts_with('/') {
            if path.contains([':', ' ', '"', '\\', '$']) {
                return Err(format!("a library lies at a path that cannot be packed: {path}"));
            }
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

/// The loader that a 64-bit little-endian ELF program asks for; `None` for a static one.
///
/// Layout: System V ABI, ELF header and program header (PT_INTERP = 3).
fn loader(program: &Path) -> io::Result<Option<String>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut file = File::open(program)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(bad("it is no 64-bit program"));
    }
    let u16_at = |b: &[u8], at: usize| u64::from(b[at]) | u64::from(b[at + 1]) << 8;
    let u64_at = |b: &[u8], at: usize| (0..8).fold(0, |n, i| n | u64::from(b[at + i]) << (8 * i));
    let (table, size, entries) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if size < 56 {
        return Err(bad("its headers are damaged"));
    }
    for index in 0..entries {
        file.seek(SeekFrom::Start(table.saturating_add(index * size)))?;
        let mut entry = [0; 56];
        file.read_exact(&mut entry)?;
        if entry[..4] != [3, 0, 0, 0] {
            continue;
        }
        let (offset, length) = (u64_at(&entry, 8), u64_at(&entry, 32));
        if length > LONGEST_LOADER {
            return Err(bad("its headers are damaged"));
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut path = Vec::new();
        file.take(length).read_to_end(&mut path)?;
        let path = String::from_utf8(path).map_err(|_| bad("its loader has no readable path"))?;
        let path = path.trim_end_matches('\0').to_owned();
        return if path.starts_with('/') {
            Ok(Some(path))
        } else {
            Err(bad("its loader has no absolute path"))
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_program_is_packed_with_its_loader_and_libraries() {
        let parts = Parts::of(&this_program()).expect("parts");
        assert!(parts.files.contains_key(PROGRAM));
        assert!(parts.files.keys().any(|p| p.contains("libc.so")), "{:?}", parts.files);
        assert!(
            parts.files.keys().any(|p| p.contains("/ld-linux") || p.contains("/ld-musl")),
            "{:?}",
            parts.files
        );
        assert!(parts.files.len() < 10, "{:?}", parts.files);
        let digest = parts.digest(Path::new("self")).expect("digest");
        assert_eq!((digest.len(), &digest), (DIGITS, &parts.digest(Path::new("self")).expect("digest")));
    }

    #[test]
    fn lists_of_libraries_are_read_and_missing_ones_noticed() {
        let list = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld-linux.so.2 (0x7f)\n";
        assert_eq!(libraries(list), Ok(vec!["/lib/x/libc.so.6".into(), "/lib64/ld-linux.so.2".into()]));
        assert!(libraries("libx.so => not found").is_err());
        assert!(libraries("libx.so => /a b/libx.so (0x1)").is_err());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("script");
        std::fs::write(&path, format!("#!/bin/sh\n{}", "x".repeat(100))).expect("writes");
        let error = Parts::of(&path).err().expect("refused").to_string();
        assert!(error.contains("no 64-bit program"), "{error}");
    }
}
