//! Log files of local services.

use super::shim::LOG_FILE;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// The lines at the end of a file, at most so many bytes.
pub fn tail(path: &Path, bytes: u64) -> Vec<String> {
    let length = fs::metadata(path).map_or(0, |m| m.len());
    lines(&part(path, length.saturating_sub(bytes), bytes))
}

/// Whole lines written since a mark, at most so many bytes from the end, and the next mark. The shim cuts the file to nothing
/// when it has copied it aside: what was not read before is in the copy.
pub fn after(path: &Path, mark: Option<&str>, bytes: u64) -> (Vec<String>, String) {
    let length = fs::metadata(path).map_or(0, |m| m.len());
    let Some(from) = mark.and_then(|m| m.parse::<u64>().ok()) else {
        return (Vec::new(), length.to_string());
    };
    let mut found = Vec::new();
    let mut begin = from;
    if length < from {
        found = lines(&part(&path.with_file_name(format!("{LOG_FILE}.1")), from, bytes));
        begin = 0;
    }
    let begin = begin.max(length.saturating_sub(bytes));
    let mut text = part(path, begin, bytes);
    // A line that is being written is read when it is whole.
    text.truncate(text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
    let end = begin + u64::try_from(text.len()).unwrap_or(0);
    found.extend(lines(&text));
    (found, end.to_string())
}

fn part(path: &Path, from: u64, bytes: u64) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut data = Vec::new();
        file.take(bytes).read_to_end(&mut data)?;
        Ok(data)
    };
    read().unwrap_or_default()
}

fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::after;
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    #[test]
    fn each_line_is_read_once_also_over_a_rotation() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("service.log");
        let write = |text: &str| {
            let mut file = OpenOptions::new().append(true).create(true).open(&path).expect("opens");
            file.write_all(text.as_bytes()).expect("writes");
        };
        assert_eq!(after(&path, None, 1000), (vec![], "0".to_owned()), "no file yet");
        write("before\n");
        let (lines, mark) = after(&path, None, 1000);
        assert!(lines.is_empty());
        write("one\ntw");
        let (lines, mark) = after(&path, Some(&mark), 1000);
        assert_eq!(lines, ["one"]);
        write("o\n");
        let (lines, mark) = after(&path, Some(&mark), 1000);
        assert_eq!(lines, ["two"]);
        write("three\n");
        fs::copy(&path, dir.path().join("service.log.1")).expect("copies");
        OpenOptions::new().write(true).open(&path).expect("opens").set_len(0).expect("cuts");
        write("four\n");
        let (lines, mark) = after(&path, Some(&mark), 1000);
        assert_eq!(lines, ["three", "four"]);
        assert!(after(&path, Some(&mark), 1000).0.is_empty());
        write(&"x\n".repeat(5000));
        assert_eq!(after(&path, Some(&mark), 1000).0.len(), 500, "bounded");
        assert!(after(&path, Some("no mark"), 1000).0.is_empty());
    }
}
