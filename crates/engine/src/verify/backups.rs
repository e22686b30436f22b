//! What backups prove: one was made and is sound, it comes back and runs, and damage is noticed.

use super::lab::Lab;
use super::proof::{Proof, Stop};
use crate::backup::ask;
use crate::backup::facts::{archive_facts, fetch_facts};
use crate::backup::vault::{Key, Location, Task, Vault, keep_key, key_file};
use crate::error::{EngineError, io};
use crate::home::Home;
use crate::store::{Progress, StoreError};
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::backup::{Keep, Snapshot};
use switchback_core::config::{Backup, CloneKept, Config};
use switchback_core::plan;

/// Proves it.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let mut made = Proof::new(
        "backup.verified",
        "a backup of the whole stack was made while it ran; all data in the repository was read and is sound; after one byte was changed, that is noticed",
    );
    let mut back = Proof::new(
        "backup.restore-drill",
        "the newest backup came back equal to what was read when it was made, started, and passed the checks",
    );
    let home = lab.sandbox()?.home.clone();
    let folder = home.state().join("verify-repository");
    let backup = Backup {
        repository: folder.to_string_lossy().into_owned(),
        key_file: None,
        env_file: None,
        every: None,
        drill: None,
        keep: Keep::default(),
        images: false,
        wal: None,
        clone: CloneKept::Remove,
    };
    let mut config = lab.sandbox()?.desired.clone();
    config.backup = Some(backup.clone());
    let location = Location::Folder(backup.repository.clone());
    let vault = Vault { location, key: Key::generate()?, opened: None, serving: None };
    keep_key(&key_file(&home, &backup), &vault.key)?;
    let none = Progress::none();
    let _: String = ask(&home, lab.world, &vault, &Task::Init, &none)?;

    let ran = lab.carry_out(&config, |_| Ok(plan::backup(&archive_facts(&home, &config, lab.world)?)))?;
    made = made.of_run(&ran.plan.run);
    made.demand(ran.done(), "backup", ran.why());
    let archived = ran.report.backup.clone();
    made.demand_known(
        archived.as_ref(),
        |a| a.left_out.is_empty(),
        "snapshot",
        "something was left out of it",
    );
    if let Some(archived) = &archived {
        made.measure("bytes", archived.snapshot.bytes).measure("files", archived.snapshot.files);
        made.measure("added_bytes", archived.snapshot.added).measure("took_ms", archived.took_ms);
    }
    let all: Vec<Snapshot> = ask(&home, lab.world, &vault, &Task::List, &none)?;
    made.demand(
        archived.as_ref().is_some_and(|a| all.iter().any(|s| s.id == a.snapshot.id)),
        "repository",
        "the snapshot is not listed",
    );
    let found: Vec<String> = ask(&home, lab.world, &vault, &Task::Check { data: true }, &none)?;
    made.demand(found.is_empty(), "repository", found.join("; "));

    if ran.done() {
        drilled(lab, &config, &home, &mut back)?;
    } else {
        back.doubt("there was no backup to try");
    }

    // A check that cannot fail proves nothing.
    match spoil(&folder)? {
        None => {
            made.doubt("the repository has no file that could be damaged");
        }
        Some(_) => {
            let noticed: Result<Vec<String>, EngineError> =
                ask(&home, lab.world, &vault, &Task::Check { data: true }, &none);
            match noticed {
                Ok(found) => {
                    let what = "one byte of the data was changed, and nothing noticed it";
                    made.demand(!found.is_empty(), "damage", what)
                }
                // It cannot even be opened any more.
                Err(EngineError::Store(StoreError::Repository { .. })) => made.demand(true, "damage", ""),
                Err(e) => made.doubt(format!("whether damage is noticed: {e}")),
            };
        }
    }
    lab.add(made);
    lab.add(back);
    Ok(())
}

fn drilled(lab: &mut Lab<'_>, config: &Config, home: &Home, back: &mut Proof) -> Result<(), Stop> {
    let ran =
        lab.carry_out(config, |_| Ok(plan::drill(&fetch_facts(home, config, lab.world, "latest", None)?.0)))?;
    back.runs.push(ran.plan.run.clone());
    let fetched = ran.state.output(&"fetch".into()).cloned().unwrap_or_default();
    let drilled = if ran.done() { Ok(()) } else { Err(ran.why()) };
    came_back(back, drilled, config.stores.len(), fetched.fingerprints.len());
    back.measure("recovery_time_ms", ran.report.times.total_ms);
    if let Some(archived) = &fetched.backup {
        let age = ran.report.started_at_ms.saturating_sub(archived.snapshot.at_ms);
        back.measure("recovery_point_ms", age).measure("bytes", archived.snapshot.bytes);
    }
    Ok(())
}

/// Judges a drill of a stack with so many stores, of which so many were compared.
fn came_back(back: &mut Proof, drilled: Result<(), String>, stores: usize, compared: usize) {
    if stores == 0 && drilled.is_ok() {
        back.not_applicable("the stack has no data");
        return;
    }
    back.demand(drilled.is_ok(), "drill", drilled.err().unwrap_or_default());
    back.demand(stores == 0 || compared > 0, "fingerprints", "nothing was compared");
}

/// Changes a byte in the middle of the largest data file.
fn spoil(folder: &Path) -> Result<Option<PathBuf>, EngineError> {
    let walk = walkdir::WalkDir::new(folder.join("data")).into_iter().flatten();
    let largest = walk
        .filter(|e| e.file_type().is_file())
        .max_by_key(|e| e.metadata().map_or(0, |m| m.len()))
        .map(walkdir::DirEntry::into_path);
    let Some(path) = largest else { return Ok(None) };
    let mut bytes = fs::read(&path).map_err(io("read", &path))?;
    let middle = bytes.len() / 2;
    let Some(byte) = bytes.get_mut(middle) else { return Ok(None) };
    *byte ^= 0xff;
    // The library makes its files read-only.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(io("open", &path))?;
    fs::write(&path, bytes).map_err(io("write", &path))?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_that_compares_nothing_fails_but_where_there_is_no_data() {
        let failed = || Err("it did not start".to_owned());
        for (drilled, stores, compared, word) in [
            (Ok(()), 2, 2, "pass"),
            (Ok(()), 2, 0, "fail"),
            (failed(), 2, 2, "fail"),
            (Ok(()), 0, 0, "not applicable"),
            (failed(), 0, 0, "fail"),
        ] {
            let mut back = Proof::new("backup.restore-drill", "");
            came_back(&mut back, drilled, stores, compared);
            assert_eq!(back.verdict().word(), word, "{stores} stores, {compared} compared");
        }
    }
}
