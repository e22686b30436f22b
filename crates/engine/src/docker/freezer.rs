//! The kernel's freezer of a container, for when the engine does not thaw it.
//!
//! An engine may wait for a process that was begun in a container in the very moment of its pause, and that is frozen itself
//! (`docker exec`, Docker 20.10, cgroup v1). Who may write here can break that circle.

use std::fs;
use std::path::PathBuf;

/// Folders with the groups of containers, and what stands before and after the id.
const GROUPS: [(&str, &str, &str); 4] = [
    ("/sys/fs/cgroup/freezer/docker", "", ""),
    ("/sys/fs/cgroup/freezer/system.slice", "docker-", ".scope"),
    ("/sys/fs/cgroup/docker", "", ""),
    ("/sys/fs/cgroup/system.slice", "docker-", ".scope"),
];

/// Freezes or thaws a container of this host; false where its group is not found or may not be written to.
pub fn set(id: &str, frozen: bool) -> bool {
    if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return false;
    }
    let words = if frozen { ("FROZEN", "1") } else { ("THAWED", "0") };
    GROUPS.iter().any(|(folder, before, after)| {
        let group = PathBuf::from(folder).join(format!("{before}{id}{after}"));
        let tell = |file: &str, word: &str| {
            let path = group.join(file);
            path.exists() && fs::write(path, word).is_ok()
        };
        tell("freezer.state", words.0) || tell("cgroup.freeze", words.1)
    })
}

#[cfg(test)]
mod tests {
    use super::set;

    #[test]
    fn what_is_no_id_names_no_group() {
        for bad in ["", "db", "../../x", &"z".repeat(64), &"a".repeat(64)] {
            assert!(!set(bad, false), "{bad}");
        }
    }
}
