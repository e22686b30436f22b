//! Gives back the pages of the program that a process has mapped and does not need while it waits.
//!
//! The kernel maps the pages around each one that is used. What a large program needs for its start is scattered over all
//! of it, so that half of it counts as resident long after. This crate owns the one system call of Switchback that Rust
//! calls unsafe, and nothing else (docs/decisions/0039).

use rustix::mm::{Advice, madvise};
use std::ffi::c_void;
use std::ops::Range;
use std::{fs, io};

/// Unmaps the pages of the program and its libraries that hold what is in their files, and returns how many bytes of
/// address space that were. They stay in the page cache; what is needed comes back by a minor page fault.
///
/// Whatever this process could have changed is left alone. Fails if the kernel does not say what is mapped.
pub fn give_back_program() -> io::Result<usize> {
    let program = std::env::current_exe()?;
    let program = program.to_string_lossy();
    let mut bytes = 0;
    // Read anew each time: what was mapped there once may be something else by now.
    for range in of_files(&fs::read_to_string("/proc/self/smaps")?, &program) {
        let start: *mut c_void = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: `of_files` returns only ranges that are private, mapped from the program or a library, not writable, and hold
        // no page that differs from the file. Dropping them changes no value that is ever read: a later access maps the same
        // page of the same file again. Nothing in this program unmaps itself or unloads a library, so what was just read
        // still holds; and a program that is running is replaced by a new file, never written to.
        unsafe { madvise(start, range.len(), Advice::LinuxDontNeed)? };
        bytes += range.len();
    }
    Ok(bytes)
}

/// The ranges of `smaps` (proc_pid_smaps(5)) that are mapped from the program or a library, for reading only, with no page of
/// the process's own.
fn of_files(smaps: &str, program: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    // The range that is being described, until one of its lines says otherwise.
    let mut current: Option<Range<usize>> = None;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or("");
        if let Some(key) = first.strip_suffix(':') {
            let own = matches!(key, "Anonymous" | "Private_Dirty" | "Shared_Dirty" | "Swap");
            if own && line.split_whitespace().nth(1) != Some("0") {
                current = None;
            }
            continue;
        }
        found.extend(current.take());
        // Addresses, permissions, offset, device, inode, and a path that may have spaces in it.
        let mut fields = line.splitn(6, ' ');
        let (permissions, path) = (fields.nth(1).unwrap_or(""), fields.nth(3).unwrap_or("").trim_start());
        if matches!(permissions, "r-xp" | "r--p") && (path == program || is_library(path)) {
            current = range(first);
        }
    }
    found.extend(current);
    found
}

/// Whether a file is named as shared libraries are.
fn is_library(path: &str) -> bool {
    let name = path.strip_prefix('/').and_then(|p| p.rsplit('/').next()).unwrap_or("");
    name.ends_with(".so") || name.contains(".so.")
}

fn range(text: &str) -> Option<Range<usize>> {
    let (from, to) = text.split_once('-')?;
    Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::{give_back_program, of_files};
    use std::fs;

    /// Kilobytes of pages of files that are mapped.
    fn of_files_resident() -> u64 {
        let status = fs::read_to_string("/proc/self/status").expect("reads");
        let line = status.lines().find(|l| l.starts_with("RssFile:")).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }

    #[test]
    fn the_program_goes_on_with_less_of_it_mapped() {
        let before = of_files_resident();
        let bytes = give_back_program().expect("gives back");
        let after = of_files_resident();
        assert!(bytes > 0);
        assert!(after < before / 2, "{before} kB, then {after} kB");
        // Static data, relocated data and code are what they were.
        let text: Vec<String> = (0..1000).map(|n| format!("{n:>5}")).collect();
        assert_eq!(text.concat().len(), 5000);
        give_back_program().expect("gives back again");
    }

    #[test]
    fn only_what_nothing_can_have_changed_is_given_back() {
        let own = "/opt/two words/switchback";
        let entry = |range: &str, permissions: &str, path: &str, anonymous: u32| {
            format!(
                "{range} {permissions} 00000000 fe:00 42 {path}\nSize: 8 kB\nRss: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n"
            )
        };
        let smaps = [
            entry("1000-3000", "r--p", own, 0),
            entry("3000-5000", "r-xp", own, 0),
            // Relocated at the start, then read-only: not what the file holds.
            entry("5000-7000", "r--p", own, 4),
            entry("7000-9000", "rw-p", own, 0),
            entry("9000-a000", "rw-p", "[heap]", 0),
            entry("a000-c000", "r-xp", "/usr/lib/libc.so.6", 0),
            entry("c000-e000", "r--s", "/var/lib/journal.db-shm", 0),
            entry("e000-f000", "r--p", "/srv/my.social/journal.db", 0),
            entry("f000-11000", "r-xp", "[vdso]", 0),
            entry("11000-12000", "rw-p", "", 0),
        ];
        assert_eq!(of_files(&smaps.concat(), own), [0x1000..0x3000, 0x3000..0x5000, 0xa000..0xc000]);
    }
}
