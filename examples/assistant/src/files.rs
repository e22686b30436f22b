//! Owns the uploads folder: safe names, and bytes that are there completely or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest name kept, in bytes; with the digest before it, well under the 255 of file systems.
const NAME_MAX_BYTES: usize = 120;

/// How many characters of the digest a stored name starts with: 128 bits.
const DIGEST_CHARS: usize = 32;

/// Makes a name safe: never a path, never hidden, never empty.
pub(crate) fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut safe: String =
        last.chars().map(|c| if c.is_control() || "\"<>:|?*%;".contains(c) { '_' } else { c }).collect();
    let mut end = safe.len().min(NAME_MAX_BYTES);
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    safe.truncate(end);
    let safe = safe.trim_start_matches('.').trim();
    if safe.is_empty() { "unnamed".to_owned() } else { safe.to_owned() }
}

/// Tells the name under which bytes are stored; the same bytes and name share one file.
pub(crate) fn stored_name(digest: &blake3::Hash, name: &str) -> String {
    format!("{}-{}", &digest.to_hex()[..DIGEST_CHARS], safe_name(name))
}

/// Stores bytes durably in the uploads folder.
pub(crate) fn store(folder: &Path, stored_as: &str, bytes: &[u8]) -> io::Result<()> {
    // Two uploads of the same file at once must not write to one temporary file.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let part = folder.join(format!(".{}-{number}.part", std::process::id()));
    let mut file = File::create(&part)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(e) = written.and_then(|()| fs::rename(&part, folder.join(stored_as))) {
        // The error that matters is the one above; a leftover part is hidden and harmless.
        let _ = fs::remove_file(&part);
        return Err(e);
    }
    File::open(folder)?.sync_all()
}

/// Tells where stored bytes are; `None` when the name, which comes from the database, is a path.
pub(crate) fn path_of(folder: &Path, stored_as: &str) -> Option<PathBuf> {
    let is_path = stored_as.is_empty() || stored_as.starts_with('.') || stored_as.contains(['/', '\\', '\0']);
    (!is_path).then(|| folder.join(stored_as))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_paths() {
        for (given, safe) in [
            ("notes.txt", "notes.txt"),
            ("../../etc/passwd", "passwd"),
            ("C:\\temp\\report.pdf", "report.pdf"),
            ("..", "unnamed"),
            (".bashrc", "bashrc"),
            ("", "unnamed"),
            ("a\u{0}b\n.txt", "a_b_.txt"),
            ("Übersicht März.ods", "Übersicht März.ods"),
        ] {
            assert_eq!(safe_name(given), safe, "{given:?}");
        }
        assert!(safe_name(&"ü".repeat(500)).len() <= NAME_MAX_BYTES);
    }

    #[test]
    fn stored_names_from_the_database_stay_in_the_folder() {
        let folder = Path::new("/uploads");
        assert_eq!(path_of(folder, "../secret"), None);
        assert_eq!(path_of(folder, "/etc/passwd"), None);
        assert_eq!(path_of(folder, ".."), None);
        assert_eq!(path_of(folder, "abc-notes.txt"), Some(folder.join("abc-notes.txt")));
    }
}
