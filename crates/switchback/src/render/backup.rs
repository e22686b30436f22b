//! Backups for people.

pub use super::words::utc;

use switchback_core::backup::Snapshot;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_engine::backup::facts;
use switchback_engine::backup::restore::Restored;

/// The backups of a stack, newest last.
pub fn list(all: &[Snapshot], place: &str) -> String {
    if all.is_empty() {
        return format!("No backups at {place}.\n");
    }
    let mut text = format!("{:<10}{:<25}{:>10}{:>12}{:>10}\n", "id", "data of", "files", "size", "new");
    for one in all {
        let id = one.id.get(..8).unwrap_or(&one.id);
        text.push_str(&format!(
            "{id:<10}{:<25}{:>10}{:>12}{:>10}\n",
            utc(one.at_ms),
            one.files,
            human_bytes(one.bytes),
            human_bytes(one.added)
        ));
    }
    let added: u64 = all.iter().map(|s| s.added).sum();
    text.push_str(&format!("{} at {place}; together they added {}\n", count(all.len()), human_bytes(added)));
    text
}

/// The times that can be returned to, from and until; nothing if there are none.
pub fn windows(all: &[(i64, i64)], names: &str) -> String {
    let mut text = String::new();
    for (number, (from, until)) in all.iter().enumerate() {
        let what = if number == 0 { format!("any moment of {names}:") } else { String::new() };
        text.push_str(&format!("{what:<35} {} to {}\n", utc(*from), utc(*until)));
    }
    if !all.is_empty() {
        text.push_str("  switchback restore --at TIME\n");
    }
    text
}

/// `1 backup`, `2 backups`.
pub fn count(n: usize) -> String {
    if n == 1 { "1 backup".to_owned() } else { format!("{n} backups") }
}

/// A stack that is there again.
pub fn restored(restored: &Restored, took_ms: u64) -> String {
    let root = restored.home.root().display();
    let replayed: String = restored.replayed.iter().map(|l| format!("{l}\n")).collect();
    format!(
        "{} is back in {root}: {}, as of {}.\n{} of data in {}, equal to what was read when the backup was made{}.\n{replayed}\nNothing runs yet.  Start it:  switchback -C {root} up\n",
        restored.config.stack,
        facts::describe(&restored.manifest.instance),
        utc(restored.snapshot.at_ms),
        human_bytes(restored.bytes),
        human_ms(took_ms),
        if restored.replayed.is_empty() { "" } else { ", but for what was replayed" },
    )
}
