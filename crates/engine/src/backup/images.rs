//! Images in snapshots: a machine that has nothing, and no registry either, gets what ran.

use super::vault::{Task, Vault};
use crate::docker::Docker;
use crate::error::{EngineError, io};
use crate::gather::{RESERVE_BYTES, free_bytes};
use crate::home::{Home, create_dir};
use crate::runtime::Stage;
use crate::store::Progress;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use switchback_core::backup::{IMAGES, Manifest, Part};
use switchback_core::compose::ImageName;
use switchback_core::duration::human_bytes;
use switchback_core::release::{ImageRef, Release};

/// The file of an image.
fn file_name(id: &str) -> String {
    let plain: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{plain}.tar")
}

/// The room that archives of the images of a release take, at most: layers that several have are in each.
pub fn bytes(world: &World, release: &Release) -> Result<u64, EngineError> {
    let Some(docker) = world.runtime.engine() else { return Ok(0) };
    let ids: BTreeSet<&str> = images_of(release).map(|i| i.id.as_str()).collect();
    let mut bytes: u64 = 0;
    for id in ids {
        bytes = bytes.saturating_add(docker.image(id)?.map_or(0, |image| image.size_bytes));
    }
    Ok(bytes)
}

/// How much of that is taken from the room that clones of the data need, too: all of it, where the engine's data lies on the
/// file system of the stack's state, or nothing.
pub fn bytes_beside_data(home: &Home, world: &World, release: &Release) -> Result<u64, EngineError> {
    let Some(docker) = world.runtime.engine() else { return Ok(0) };
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    let there = device(Path::new(&docker.info()?.root_dir));
    if there.is_some() && there == device(&home.state()) { bytes(world, release) } else { Ok(0) }
}

fn images_of(release: &Release) -> impl Iterator<Item = &ImageRef> {
    release.services.values().filter_map(|s| s.image.as_ref())
}

/// Writes the images of a release into a folder. Their places in the snapshot, by id.
pub fn save(
    world: &World,
    release: &Release,
    folder: &Path,
    stage: &Stage<'_>,
    progress: &Progress<'_>,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mut places = BTreeMap::new();
    let Some(docker) = world.runtime.engine() else { return Ok(places) };
    create_dir(folder)?;
    // What an earlier attempt left is written anew.
    fit(bytes(world, release)?, free_bytes(folder)?.saturating_add(there(folder)))?;
    for image in images_of(release) {
        let name = file_name(&image.id);
        if places.insert(image.id.clone(), format!("{IMAGES}/{name}")).is_some() {
            continue;
        }
        (stage.say)(&format!("saving the image {}", image.reference));
        let path = folder.join(name);
        let mut file = BufWriter::new(File::create(&path).map_err(io("make", &path))?);
        docker.save_image(&image.id, &mut file, progress)?;
    }
    Ok(places)
}

/// Refuses where archives would fill the disk.
fn fit(need: u64, free: u64) -> Result<(), EngineError> {
    if free >= need.saturating_add(RESERVE_BYTES) {
        return Ok(());
    }
    Err(EngineError::refused(
        format!(
            "not enough disk space for the images: {} are needed beside the stack and {} in reserve, {} are free",
            human_bytes(need),
            human_bytes(RESERVE_BYTES),
            human_bytes(free)
        ),
        "free some space, or leave them out (`backup.images: false`)",
    ))
}

/// Bytes of the files in a folder.
fn there(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|m| m.len()).sum()
}

/// Whether images of a snapshot's release are not here, and the snapshot has them.
pub fn missing(world: &World, manifest: &Manifest) -> Result<bool, EngineError> {
    let Some(docker) = world.runtime.engine() else { return Ok(false) };
    for image in images_of(&manifest.release) {
        if manifest.images.contains_key(&image.id) && docker.image(&image.id)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Loads those images of a snapshot's release that are not here, if the snapshot has them. Their names.
pub fn load(
    home: &Home,
    world: &World,
    vault: &Vault,
    (snapshot, manifest): (&str, &Manifest),
    stage: &Stage<'_>,
    progress: &Progress<'_>,
) -> Result<Vec<String>, EngineError> {
    let mut brought = Vec::new();
    let Some(docker) = world.runtime.engine() else { return Ok(brought) };
    let folder = home.state().join("images-tmp");
    for image in images_of(&manifest.release) {
        let Some(place) = manifest.images.get(&image.id) else { continue };
        if docker.image(&image.id)?.is_some() {
            continue;
        }
        (stage.say)(&format!("bringing back the image {}", image.reference));
        create_dir(&folder)?;
        let file = folder.join(file_name(&image.id));
        let part = Part::new(file.to_string_lossy(), place.clone());
        let task = Task::Restore { snapshot: snapshot.to_owned(), parts: vec![part] };
        let done = super::child::perform(vault, &task, progress).and_then(|_| one(docker, &file, image));
        let _ = fs::remove_dir_all(&folder);
        done?;
        brought.push(image.reference.clone());
    }
    Ok(brought)
}

/// Loads an archive, and gives the image its name, if no other one has it.
fn one(docker: &Docker, path: &Path, image: &ImageRef) -> Result<(), EngineError> {
    docker.load_image(File::open(path).map_err(io("open", path))?)?;
    if docker.image(&image.id)?.is_none() {
        return Err(EngineError::refused(
            format!("the engine made another image of the archive of {}", image.reference),
            "an engine with another kind of image store gives other ids; pull the image instead",
        ));
    }
    if let Ok(name) = ImageName::parse(&image.reference)
        && docker.image(&image.reference)?.is_none()
    {
        docker.tag(&image.id, &name.repository, name.tag())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_lies_under_a_name_without_anything_special() {
        assert_eq!(file_name("sha256:00ff"), "sha25600ff.tar");
        assert_eq!(file_name("../../etc/x"), "etcx.tar");
    }

    #[test]
    fn images_that_do_not_fit_are_refused_before_they_are_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("sha25600ff.tar"), [0; 1000]).expect("writes");
        assert_eq!((there(dir.path()), there(&dir.path().join("absent"))), (1000, 0));
        let gib = 1 << 30;
        assert!(fit(gib, gib + RESERVE_BYTES).is_ok());
        let refused = fit(gib, gib).expect_err("there is no room").to_string();
        assert!(refused.contains("for the images"), "{refused}");
        assert!(fit(u64::MAX, gib).is_err());
    }
}
